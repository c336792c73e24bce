import ApusExperts
import ApusKernels
import ApusNN
import ApusTensor
import ApusTestSupport
import Testing

// Shape letters: T tokens, D model width, F expert width, E experts, K choices per token.

/// Finite differences of whole layers with the routing held fixed.
@Suite struct GradientTests {
    /// A layer with what its pass depends on.
    struct Case: Sendable, CustomTestStringConvertible {
        let name: String
        let configuration: MoEConfiguration
        var step: Int?
        var chunks = 1
        var mask: [UInt8]?

        var testDescription: String { name }
    }

    static let lengths = [3, 2, 6]

    static func moe(
        _ router: RouterConfiguration = RouterConfiguration(), _ losses: RouterLosses = RouterLosses(),
        activation: Activation = .swiglu, policy: TokenPolicy = .dropless, bank: ExpertBankKind = .grouped,
        shared: Int = 0,
        residual: Bool = false
    ) -> MoEConfiguration {
        MoEConfiguration(
            experts: 4, choices: 2, width: 5, activation: activation, router: router, policy: policy, bank: bank,
            losses: losses, sharedWidth: shared, isResidual: residual)
    }

    static let cases: [Case] = {
        let half: [UInt8] = [1, 1, 0, 1, 1, 1, 0, 1, 1, 0, 0]
        var cases: [Case] = []
        for scoring in RouterConfiguration.Scoring.allCases {
            let plain = RouterConfiguration(scoring: scoring)
            let scaled = RouterConfiguration(scoring: scoring, renormalizes: true, weightScale: 1.7)
            cases += [
                Case(name: "\(scoring), as they are", configuration: moe(plain)),
                Case(name: "\(scoring), renormalised and scaled", configuration: moe(scaled)),
                Case(name: "\(scoring), balance", configuration: moe(plain, RouterLosses(balance: 3))),
                Case(name: "\(scoring), z", configuration: moe(plain, RouterLosses(z: 2))),
                Case(name: "\(scoring), importance", configuration: moe(plain, RouterLosses(importance: 2))),
                Case(
                    name: "\(scoring), all losses, some tokens masked",
                    configuration: moe(scaled, RouterLosses(balance: 3, z: 2, importance: 4)), mask: half),
                Case(
                    name: "\(scoring), jitter",
                    configuration: moe(
                        RouterConfiguration(scoring: scoring, renormalizes: true, jitter: 0.2),
                        RouterLosses(balance: 1, z: 1)), step: 5),
                Case(
                    name: "\(scoring), capacity",
                    configuration: moe(
                        scaled, RouterLosses(balance: 1, importance: 1),
                        policy: .capacity(factor: 0.7, minimum: 1, order: .probability))),
            ]
        }
        let capacity = TokenPolicy.capacity(factor: 0.7, minimum: 1, order: .random)
        let all = RouterLosses(balance: 3, z: 2, importance: 4)
        for scoring in RouterConfiguration.Scoring.allCases {
            let cosine = CosineConfiguration(width: 5, temperature: 0.4, floor: 0.1)
            cases += [
                Case(
                    name: "\(scoring), cosine, all losses, some tokens masked",
                    configuration: moe(RouterConfiguration(scoring: scoring, cosine: cosine), all), mask: half),
                Case(
                    name: "\(scoring), cosine, renormalised, jitter",
                    configuration: moe(
                        RouterConfiguration(scoring: scoring, renormalizes: true, jitter: 0.2, cosine: cosine)),
                    step: 3),
                Case(
                    name: "\(scoring), groups, all losses",
                    configuration: moe(
                        RouterConfiguration(
                            scoring: scoring, groupLimit: GroupLimit(groups: 2, chosen: 1, score: .bestTwo)), all)),
                Case(
                    name: "\(scoring), capacity by importance",
                    configuration: moe(
                        RouterConfiguration(scoring: scoring), all,
                        policy: .capacity(factor: -0.7, minimum: 1, order: .importance), bank: .padded), step: 2),
            ]
        }
        cases += [
            Case(name: "two levels, all losses", configuration: moe(RouterConfiguration(nodes: 2), all), mask: half),
            Case(
                name: "two levels, balance, jitter",
                configuration: moe(
                    RouterConfiguration(renormalizes: true, jitter: 0.2, nodes: 2), RouterLosses(balance: 3)), step: 4),
        ]
        for step in [1, 9, 30] {
            let schedule = DenseToSparse(start: 2, end: 0.5, steps: 20, threshold: 0.15)
            var annealed = moe(RouterConfiguration(weightScale: 1.3, annealing: schedule), all, shared: 3)
            annealed.choices = 4
            cases.append(Case(name: "annealed, step \(step)", configuration: annealed, step: step, mask: half))
            annealed.router.renormalizes = true
            cases.append(Case(name: "annealed and renormalised, step \(step)", configuration: annealed, step: step))
        }
        for bank in [ExpertBankKind.grouped, .padded] {
            var dropping = moe(policy: capacity, bank: bank, shared: 3)
            dropping.dropout = 0.4
            cases.append(Case(name: "expert dropout, \(bank)", configuration: dropping, step: 2))
            cases.append(Case(name: "expert dropout, \(bank), chunks", configuration: dropping, step: 2, chunks: 3))
        }
        cases += Activation.allCases.filter { $0 != .relu }.map {
            Case(name: "\($0)", configuration: moe(activation: $0, shared: 3, residual: true))
        }
        cases += [
            Case(
                name: "padded", configuration: moe(policy: capacity, bank: .padded, shared: 3, residual: true),
                step: 1),
            Case(name: "block-sparse", configuration: moe(bank: .blockSparse, shared: 3)),
            Case(
                name: "block-sparse, one input for each output, capacity",
                configuration: moe(activation: .geluTanh, policy: capacity, bank: .blockSparse), step: 1),
            Case(name: "three chunks", configuration: moe(shared: 3, residual: true), chunks: 3),
            Case(name: "four chunks, capacity", configuration: moe(policy: capacity), step: 1, chunks: 4),
        ]
        return cases
    }()

    @Test(arguments: cases)
    func `gradients are derivatives`(_ entry: Case) throws {
        let fixture = try LayerFixture(entry.configuration, width: 6, chunks: entry.chunks)
        let x = try fixture.input(11)
        let dy = try fixture.input(11, seed: 8)
        var setting = LayerPass.Setting()
        setting.layout = try fixture.layout(GradientTests.lengths, mask: entry.mask)
        setting.globalTokens = 14
        setting.step = entry.step
        let trace = RoutingTrace()
        setting.trace = trace
        let pass = try LayerPass(fixture, x, dy: dy, setting)
        setting.trace = trace.replay()
        let loss = {
            let pass = try LayerPass(fixture, x, setting)
            return weightedSum(pass.output, dy) + entry.configuration.losses.total(pass)
        }
        let check = GradientCheck()
        try check.expect(try #require(pass.inputGradient).floats(), of: x, "x", loss: loss)
        for parameter in fixture.store.parameters {
            let gradient = try #require(try parameter.gradient()).floats()
            try parameter.withWeights(on: fixture.backend.stream) {
                try check.expect(gradient, of: $0, parameter.name, loss: loss)
            }
        }
    }

    /// ReLU has kinks that differences step over; its expert gradients are those of the definition instead.
    @Test func `gradients through ReLU`() throws {
        let fixture = try LayerFixture(GradientTests.moe(activation: .relu), width: 6)
        let x = try fixture.input(11)
        let dy = try fixture.input(11, seed: 8)
        let pass = try LayerPass(fixture, x, dy: dy)
        let kept = pass.kept
        let weights = pass.routing.weights.tensor.doubles
        for expert in 0..<4 {
            let (up, down) = (try fixture.weights("\(expert).up"), try fixture.weights("\(expert).down"))
            var (dup, ddown) = (Array(repeating: 0.0, count: up.count), Array(repeating: 0.0, count: down.count))
            for slot in kept.indices where kept[slot] == expert {
                let (row, slope) = (x[slot / 2..<slot / 2 + 1].doubles, dy[slot / 2..<slot / 2 + 1].doubles)
                for f in 0..<5 {
                    let h = (0..<6).reduce(0.0) { $0 + up[f * 6 + $1] * row[$1] }
                    guard h > 0 else { continue }
                    let da = (0..<6).reduce(0.0) { $0 + down[$1 * 5 + f] * slope[$1] } * weights[slot]
                    for d in 0..<6 {
                        dup[f * 6 + d] += da * row[d]
                        ddown[d * 5 + f] += weights[slot] * slope[d] * h
                    }
                }
            }
            expectClose(try fixture.gradient("\(expert).up"), dup, within: 1e-5, "up of \(expert)")
            expectClose(try fixture.gradient("\(expert).down"), ddown, within: 1e-5, "down of \(expert)")
        }
    }

    @Test(arguments: RouterConfiguration.Scoring.allCases, [false, true])
    func `the pooled loss through two layers`(_ scoring: RouterConfiguration.Scoring, _ isMasked: Bool) throws {
        let backend = CPUBackend(threadCount: 2)
        let configuration = GradientTests.moe(
            RouterConfiguration(scoring: scoring), RouterLosses(balance: 3, scope: .pooled))
        let fixtures = try (0..<2).map { try LayerFixture(configuration, width: 6, index: $0, backend: backend) }
        let mask: [UInt8]? = isMasked ? [1, 1, 0, 1, 1, 1, 0, 1, 1, 0, 0] : nil
        let layout = try fixtures[0].layout(GradientTests.lengths, mask: mask)
        let x = try fixtures[0].input(11)
        let dy = try fixtures[0].input(11, seed: 8)
        let trace = RoutingTrace()
        func run(_ tape: Tape, _ trace: RoutingTrace) throws -> (input: Variable, output: Variable, value: Double) {
            let context = MoEContext(
                forward: ForwardContext(tape: tape, layout: layout), trace: trace, globalTokens: 14)
            let input = tape.leaf(x)
            var hidden = input
            var routings: [Routing] = []
            for fixture in fixtures {
                let output = try fixture.layer(hidden, context)
                hidden = output.hidden
                routings.append(output.routing)
            }
            let value = try PooledBalanceLoss.addRoots(routings, coefficient: 3, globalTokens: 14, on: tape)
            return (input, hidden, try #require(value).doubles[0])
        }
        let tape = Tape(backend: backend)
        let pass = try run(tape, trace)
        try tape.addRoot(pass.output, seed: dy)
        try tape.backward()
        let loss = {
            let replayed = try run(Tape(backend: backend, isRecording: false), trace.replay())
            return weightedSum(replayed.output.tensor, dy) + 3 * replayed.value
        }
        let check = GradientCheck()
        try check.expect(try #require(tape.gradient(of: pass.input)).floats(), of: x, "x", loss: loss)
        for parameter in fixtures.flatMap(\.store.parameters) {
            let gradient = try #require(try parameter.gradient()).floats()
            try parameter.withWeights(on: backend.stream) {
                try check.expect(gradient, of: $0, parameter.name, loss: loss)
            }
        }
    }
}
