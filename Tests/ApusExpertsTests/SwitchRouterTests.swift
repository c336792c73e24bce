import ApusExperts
import ApusKernels
import ApusNN
import ApusTensor
import ApusTestSupport
import Testing

// Shape letters: B sequences, S tokens of a sequence, T = B * S, D model width, E experts, K choices per token.

/// The constants published with Switch Transformers' router, and Mixtral's pooled balance loss
/// (`Tools/oracles/switch_router.py`).
@Suite struct SwitchRouterTests {
    struct File: Decodable { let cases: [Entry] }

    enum Entry: Decodable {
        case balance(Balance)
        case logits(LogitLoss)
        case router(WholeRouter)
        case pooled(Pooled)

        private enum Key: CodingKey { case kind }

        init(from decoder: any Decoder) throws {
            switch try decoder.container(keyedBy: Key.self).decode(String.self, forKey: .kind) {
            case "switch_balance": self = .balance(try Balance(from: decoder))
            case "switch_z": self = .logits(try LogitLoss(from: decoder))
            case "switch_router": self = .router(try WholeRouter(from: decoder))
            default: self = .pooled(try Pooled(from: decoder))
            }
        }
    }

    struct Balance: Decodable {
        let scores: [[Float]]
        let chosen: [Int]
        let published: Double
    }

    struct LogitLoss: Decodable {
        let logits: [[[Float]]]
        let z_loss: Double
        let published: Double
    }

    struct WholeRouter: Decodable {
        let name: String
        let tokens: [[[Float]]]
        let weight: [[Float]]
        let capacity: Int
        let logits: [[[Float]]]
        let chosen: [[Int]]
        let kept: [[Bool]]
        let weights: [[Float]]
        let z_loss: Double
        let balance_loss: Double
        let published_balance_loss: Double?
        let published_z_loss: Double?
    }

    struct Pooled: Decodable {
        let name: String
        let k: Int
        let layers: [[[Float]]]
        let mask: [[UInt8]]?
        let balance_loss: Double
        let gradient: [[[Float]]]
    }

    private let entries: [Entry]

    init() throws { entries = try golden("router/switch_router.json", as: File.self).cases }

    @Test func `balance loss`() throws {
        let backend = CPUBackend(threadCount: 1)
        let entries = entries.compactMap { if case .balance(let entry) = $0 { entry } else { nil } }
        #expect(entries.count == 1)
        for entry in entries {
            let (tokens, experts) = (entry.scores.count, entry.scores[0].count)
            let scores = try backend.allocator.tensor(entry.scores.flatMap { $0 }, Shape(tokens, experts))
            let ids = try backend.allocator.integers(entry.chosen, Shape(tokens, 1))
            let (sums, counts) = (
                try backend.empty(Shape(1, experts), .f32), try backend.empty(Shape(1, experts), .f32)
            )
            try backend.sumOverGroups(scores, groups: [0..<tokens], mask: nil, into: sums)
            try backend.countChoices(ids, groups: [0..<tokens], mask: nil, into: counts)
            let value = try backend.empty(Shape(1), .f32)
            try backend.balanceLoss(
                sums, counts: counts, scale: Float(experts) / Float(tokens), into: value, coefficient: 0, gradient: nil)
            #expect(abs(value.doubles[0] - entry.published) < 1e-6)
        }
    }

    @Test func `z loss`() throws {
        let backend = CPUBackend(threadCount: 1)
        let entries = entries.compactMap { if case .logits(let entry) = $0 { entry } else { nil } }
        #expect(entries.count == 1)
        for entry in entries {
            let rows = entry.logits.flatMap { $0 }
            let logits = try backend.allocator.tensor(rows.flatMap { $0 }, Shape(rows.count, rows[0].count))
            let value = try backend.empty(Shape(1), .f32)
            try backend.logitLoss(
                logits, mask: nil, scale: 1 / Float(rows.count), into: value, coefficient: 0, gradient: nil)
            #expect(abs(value.doubles[0] - entry.published) < 2e-6 * entry.published)
            #expect(abs(value.doubles[0] - entry.z_loss) < 1e-6 * entry.z_loss)
        }
    }

    @Test func `whole routers`() throws {
        let entries = entries.compactMap { if case .router(let entry) = $0 { entry } else { nil } }
        #expect(entries.count == 3)
        for entry in entries {
            let (length, experts, width) = (entry.tokens[0].count, entry.weight.count, entry.weight[0].count)
            // The least factor whose capacity is the case's.
            let factor = Float(entry.capacity * experts) / Float(length)
            let fixture = try LayerFixture(
                MoEConfiguration(
                    experts: experts, choices: 1, width: 3,
                    policy: .capacity(factor: factor, minimum: 0, order: .position), losses: RouterLosses(z: 1)),
                width: width)
            try fixture.assign("gate", entry.weight.flatMap { $0 })
            let tokens = entry.tokens.flatMap { $0 }
            let x = try fixture.backend.allocator.tensor(tokens.flatMap { $0 }, Shape(tokens.count, width))
            var setting = LayerPass.Setting()
            setting.layout = try fixture.layout(entry.tokens.map(\.count))
            let pass = try LayerPass(fixture, x, setting)
            #expect(pass.routing.decision.capacities.allSatisfy { $0 == min(entry.capacity, length) })
            #expect(pass.chosen == entry.chosen.flatMap { $0 }, "\(entry.name)")
            let kept = entry.kept.flatMap { $0 }
            #expect(pass.kept.map { $0 >= 0 } == kept, "\(entry.name)")
            // The score of the chosen expert; ours is 0 where the choice is dropped.
            let weights = zip(entry.weights.flatMap { $0 }, kept).map { $1 ? Double($0) : 0 }
            expectClose(pass.routing.weights.tensor, weights, within: 1e-6, entry.name)
            let (balance, z) = (try #require(pass.value(.balance)), try #require(pass.value(.z)))
            #expect(abs(balance - entry.balance_loss) < 1e-6 * entry.balance_loss, "\(entry.name)")
            #expect(abs(z - entry.z_loss) < 1e-6 * entry.z_loss, "\(entry.name)")
            if let published = entry.published_balance_loss { #expect(abs(balance - published) < 2e-6) }
            if let published = entry.published_z_loss { #expect(abs(z - published) < 1e-6) }
        }
    }

    @Test func `the pooled balance loss and its gradient`() throws {
        let entries = entries.compactMap { if case .pooled(let entry) = $0 { entry } else { nil } }
        #expect(entries.count == 8)
        for entry in entries {
            let backend = CPUBackend(threadCount: 1)
            let (tokens, experts) = (entry.layers[0].count, entry.layers[0][0].count)
            let mask = entry.mask?.flatMap { $0 }
            let counted = mask.map { flags in flags.count { $0 != 0 } } ?? tokens
            let tape = Tape(backend: backend)
            let leaves = try entry.layers.map { logits in
                tape.leaf(try backend.allocator.tensor(logits.flatMap { $0 }, Shape(tokens, experts)))
            }
            let routings = try leaves.enumerated().map { index, logits in
                let fixture = try LayerFixture(
                    MoEConfiguration(
                        experts: experts, choices: entry.k, width: 1, losses: RouterLosses(scope: .pooled)),
                    width: experts, index: index, backend: backend)
                // An identity for a weight: the input is the logits.
                try fixture.assign("gate", (0..<experts * experts).map { $0 / experts == $0 % experts ? 1 : 0 })
                let context = MoEContext(
                    forward: ForwardContext(tape: tape, layout: try fixture.layout([tokens], mask: mask)),
                    globalTokens: counted)
                return try fixture.router.route(logits, layer: index, context)
            }
            let value = try PooledBalanceLoss.addRoots(routings, coefficient: 1, globalTokens: counted, on: tape)
            #expect(
                abs(try #require(value).doubles[0] - entry.balance_loss) < 1e-6 * entry.balance_loss, "\(entry.name)")
            try tape.backward()
            for (leaf, expected) in zip(leaves, entry.gradient) {
                let gradient = try #require(tape.gradient(of: leaf)).floats()
                let wanted = expected.flatMap { $0 }.map(Double.init)
                // Relative to a typical gradient: balanced cases have one of nothing but rounding.
                let difference = zip(gradient, wanted).map { abs(Double($0) - $1) }.max() ?? 0
                #expect(difference < 2e-7, "\(entry.name)")
            }
        }
    }
}
