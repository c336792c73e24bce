import ApusExperts
import ApusKernels
import ApusModels
import ApusNN
import ApusOptim
import ApusTestSupport
import ApusTraining
import Foundation
import Testing

@Suite("Recipes under stress")
struct RecipeRobustnessTests {
    private static let scraps = [
        "*a", "&a ", "<<: *a", "[", "]", "{", "}", ": ", ":", "- ", "? ", "'", "\"", "\t", "\u{0}", "\u{FEFF}", "nan",
        ".inf", "-1",
        "0", "99999999999999999999", "1e999", "!!int ", "!x ", "|\n", ">\n", "---\n", "...\n", "%YAML 1.1\n", "#",
        "null", "~",
        "\r", "\u{2028}", "é", "😀", "\\", "\"\\ud800\"", "@", "`", "count", "experts:", "\n", "\n\n  ",
    ]

    private static func mutate(_ text: [UInt8], _ random: inout SeededGenerator) -> [UInt8] {
        var text = text
        for _ in 0..<Int.random(in: 1...4, using: &random) where !text.isEmpty {
            let at = Int.random(in: 0..<text.count, using: &random)
            let end = min(text.count, at + Int.random(in: 1...40, using: &random))
            switch Int.random(in: 0..<7, using: &random) {
            case 0: text[at] = UInt8.random(in: 0...255, using: &random)
            case 1: text.removeSubrange(at..<end)
            case 2: text.insert(contentsOf: text[at..<end], at: at)
            case 3: text.insert(contentsOf: Array((scraps.randomElement(using: &random) ?? "").utf8), at: at)
            case 4: text.replaceSubrange(at..<end, with: Array((scraps.randomElement(using: &random) ?? "").utf8))
            case 5: text.swapAt(at, Int.random(in: 0..<text.count, using: &random))
            default: text[at] = UInt8(ascii: "0") + UInt8.random(in: 0...9, using: &random)
            }
        }
        return text
    }

    @Test("5000 mutations of the quickstart are accepted or refused, never anything else, and fast")
    func mutations() throws {
        let path = Fixture.folder.appendingPathComponent("quickstart.yaml").path
        let source = Array(try String(contentsOfFile: path, encoding: .utf8).utf8)
        var random = SeededGenerator(seed: 20)
        var accepted = 0
        var slowest = Duration.zero
        for _ in 0..<5000 {
            let yaml = String(decoding: Self.mutate(source, &random), as: UTF8.self)
            let clock = ContinuousClock()
            let start = clock.now
            do throws(Recipe.Error) {
                let recipe = try Recipe(yaml: yaml)
                accepted += 1
                if try Recipe(yaml: recipe.resolvedYAML()) != recipe { Issue.record("does not read back:\n\(yaml)") }
            } catch {
                if error.findings.isEmpty || !error.description.contains(":") {
                    Issue.record("no reason for:\n\(yaml)")
                }
            }
            slowest = max(slowest, clock.now - start)
        }
        #expect(accepted > 100 && accepted < 4900)
        #expect(slowest < .seconds(2))
    }

    private static let bombs: [String] = {
        let laughs = (1..<10).map {
            "l\($0): &l\($0) [\(Array(repeating: "*l\($0 - 1)", count: 10).joined(separator: ", "))]"
        }
        let pairs = (1..<9).map { "l\($0): &l\($0) [*l\($0 - 1), *l\($0 - 1)]" }
        return [
            "l0: &l0 [x]\n" + laughs.joined(separator: "\n"),
            "l0: &l0 [x]\n" + pairs.joined(separator: "\n"),
            "l0: &l0 [x]\n" + pairs.prefix(7).joined(separator: "\n") + "\n? *l7\n: 1\n",
            "a: &a [*a]",
            String(repeating: "[", count: 500_000),
            String(repeating: "[", count: 900) + String(repeating: "]", count: 900),
            String(repeating: "{a: ", count: 200_000),
            String(repeating: "- ", count: 200_000),
            String(repeating: "? ", count: 200_000),
            (0..<900).map { String(repeating: " ", count: $0) + "a:\n" }.joined(),
            (0..<60_000).map { "key\($0): 1\n" }.joined(),
            String(repeating: "seed: 1\n", count: 60_000),
            "a: \"" + String(repeating: "x", count: 1_000_000),
            String(repeating: "a", count: 1_000_000) + ": 1",
            String(repeating: "#\n", count: 500_000),
            String(repeating: "x", count: 1_048_577),
            String(repeating: "- *\n", count: 100_000),
        ]
    }()

    @Test("bombs are refused at once", arguments: bombs.indices)
    func bomb(_ index: Int) {
        let clock = ContinuousClock()
        var complaint = ""
        let time = clock.measure { complaint = Fixture.complaint(Self.bombs[index]) }
        #expect(!complaint.isEmpty)
        #expect(complaint.utf8.count < 4000, "a message for people")
        #expect(time < .seconds(5), "\(time)")
    }

    @Test("2000 random recipes read back equal")
    func roundTrips() throws {
        var random = SeededGenerator(seed: 5)
        for _ in 0..<2000 {
            let recipe = RandomRecipe.make(&random)
            let text = recipe.resolvedYAML()
            let again = try Recipe(yaml: text)
            if again != recipe { Issue.record("does not read back:\n\(text)") }
        }
    }
}

/// Recipes of every kind that the reader accepts.
private enum RandomRecipe {
    static func make(_ random: inout SeededGenerator) -> Recipe {
        func real(_ limit: Float) -> Float { Float.random(in: 1e-6..<limit, using: &random) }
        func pick<Choice: CaseIterable>(_: Choice.Type) -> Choice {
            Choice.allCases.randomElement(using: &random) ?? Choice.allCases.first.unsafelyUnwrapped
        }
        func flag() -> Bool { Bool.random(using: &random) }
        func whole(_ range: ClosedRange<Int>) -> Int { Int.random(in: range, using: &random) }
        let scoring = pick(RouterConfiguration.Scoring.self)
        let hasCapacity = flag()
        let leastExperts = whole(1...16)
        let bank: ExpertBankKind = hasCapacity ? pick(ExpertBankKind.self) : flag() ? .grouped : .blockSparse
        let block = whole(1...160)
        let mixture = MoEConfiguration(
            experts: leastExperts, choices: whole(1...leastExperts),
            width: bank == .blockSparse ? block * whole(1...5) : whole(1...512),
            activation: pick(Activation.self),
            router: RouterConfiguration(
                scoring: scoring, renormalizes: flag(), weightScale: real(3), jitter: real(1), gumbel: flag(),
                biasRate: scoring == .sigmoid ? real(1) : 0),
            policy: hasCapacity
                ? .capacity(factor: real(4), minimum: whole(1...64), order: pick(TokenPolicy.DropOrder.self))
                : .dropless,
            bank: bank, blockSize: block,
            losses: RouterLosses(
                balance: real(1), scope: .layer, z: real(1), importance: real(1)),
            sharedWidth: whole(0...128), isResidual: flag())
        let denseWidth = whole(1...512)
        let feedForward = (0..<whole(1...9)).map { _ -> ModelConfiguration.FeedForward in
            guard flag() else { return .dense(width: denseWidth) }
            var layer = mixture
            if flag() { layer.experts = whole(leastExperts...64) }
            return .moe(layer)
        }
        let keyValueHeads = whole(1...8)
        let heads = keyValueHeads * whole(1...4)
        let sequenceLength = whole(1...512)
        let model = ModelConfiguration(
            vocabulary: whole(257...1000), width: whole(1...600), heads: heads, keyValueHeads: keyValueHeads,
            headWidth: 2 * whole(1...64), maximumPositions: sequenceLength + whole(0...100),
            norm: pick(ModelConfiguration.Norm.self),
            normEpsilon: real(1e-3),
            position: flag() ? .learned : .rotary(theta: Double.random(in: 1...1e7, using: &random)),
            queryKeyNorm: pick(ModelConfiguration.QueryKeyNorm.self), attentionBias: flag(),
            attentionClip: flag() ? real(10) : nil,
            slidingWindow: flag() ? whole(1...100) : nil, activation: pick(Activation.self), feedForward: feedForward,
            tiedEmbeddings: flag(), initialDeviation: real(1))
        let group = whole(1...4)
        let balanceGroup = group * whole(1...3)
        let microBatch = balanceGroup * whole(1...3)
        let heldOut = flag() ? Double.random(in: 0..<1, using: &random) : 0
        let kind = pick(LearningRateSchedule.Kind.self)
        let warmup = whole(0...50)
        let training = TrainingConfiguration(
            steps: 100 + whole(0...100), batch: microBatch * whole(1...3), microBatch: microBatch,
            precision: pick(Precision.self),
            optimizer: .init(
                learningRate: Double.random(in: 1e-9...1, using: &random), beta1: real(1), beta2: real(1),
                epsilon: real(1),
                weightDecay: real(1)),
            schedule: .init(
                kind: kind, warmupSteps: warmup,
                finalFraction: kind == .constant ? 1 : Double.random(in: 0...1, using: &random),
                decaySteps: kind == .constantThenDecay ? whole(0...50) : 0),
            clipNorm: real(2), checkpointing: flag(), routingGroup: group, balanceGroup: balanceGroup,
            evaluateEvery: heldOut > 0 ? whole(0...100) : 0, evaluateBatches: whole(1...9), deterministic: flag(),
            threads: flag() ? whole(1...64) : nil, memoryLimit: flag() ? whole(1...1 << 40) : nil)
        let path = String(
            (0..<whole(1...20)).map { _ in
                "ab é\"'\\:#{}[]*&!|>%@`\n\t\u{7F}\u{85}\u{2028}😀-".randomElement(using: &random) ?? "a"
            })
        let isWeighted = flag()
        let sources = (1...whole(1...4)).map { "\(path)\($0)" }
        let data = DataConfiguration(
            sources: sources.map {
                DataConfiguration.Source(path: $0, weight: isWeighted ? Double(real(9)) + 1e-3 : nil)
            },
            sequenceLength: sequenceLength, heldOut: heldOut, shuffle: flag(),
            temperature: sources.count > 1 ? Double(real(4)) + 0.5 : 1, documentMask: flag(), verify: flag())
        return Recipe(
            seed: UInt64(whole(0...Int.max)), model: model,
            data: data,
            training: training,
            output: OutputConfiguration(saveEvery: whole(0...100), keep: whole(1...9), logEvery: whole(0...9)))
    }
}
