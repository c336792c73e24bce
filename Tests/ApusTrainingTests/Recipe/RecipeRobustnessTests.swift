import ApusExperts
import ApusKernels
import ApusModels
import ApusNN
import ApusOptim
import ApusTestSupport
import Foundation
import Testing

@testable import ApusTraining

@Suite("Recipes under stress")
struct RecipeRobustnessTests {
    private static let scraps = [
        "*a", "&a ", "<<: *a", "[", "]", "{", "}", ": ", ":", "- ", "? ", "'", "\"", "\t", "\u{0}", "\u{FEFF}", "nan",
        ".inf", "-1",
        "0", "99999999999999999999", "1e999", "!!int ", "!x ", "|\n", ">\n", "---\n", "...\n", "%YAML 1.1\n", "#",
        "null", "~",
        "\r", "\u{2028}", "é", "😀", "\\", "\"\\ud800\"", "@", "`", "count", "experts:", "\n", "\n\n  ",
    ]

    @Test("mutations of recipes are accepted or refused, never anything else, and fast")
    func mutations() async {
        await #expect(processExitsWith: .success) {
            // A shipped one less its comments, in which damage does nothing, and more often a short one, which damage
            // hits where it matters.
            let shipped = try Self.withoutComments(RecipeFile.text(of: "\(Fixture.folder.path)/quickstart.yaml"))
            let originals = [shipped] + Array(repeating: Fixture.good, count: 7)
            let mutator = Mutator(originals.map { Array($0.utf8) }, seed: 20, words: Self.scraps)
            MutationRun(mutator) { bytes in
                let yaml = String(decoding: bytes, as: UTF8.self)
                do throws(Recipe.Error) {
                    let recipe = try Recipe(yaml: yaml)
                    guard bytes.count % 16 == 0 else { return .accepted }
                    return try Recipe(yaml: recipe.resolvedYAML()) == recipe
                        ? .accepted : .wrong("reads back as another")
                } catch {
                    let isTold = !error.findings.isEmpty && error.description.contains(":")
                    return isTold ? .refused("refused") : .wrong("no reason")
                }
            }.expectSound(refused: ["refused"])
        }
    }

    private static func withoutComments(_ yaml: String) -> String {
        yaml.split(separator: "\n").map { $0.prefix { $0 != "#" } }.filter { !$0.allSatisfy { $0 == " " } }
            .map { $0 + "\n" }.joined()
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
        let choices = whole(1...min(leastExperts, TokenPolicy.DropOrder.mostImportanceChoices))
        let isAnnealed = scoring == .softmaxThenTopK && flag()
        let floor = real(0.1)
        let mixture = MoEConfiguration(
            experts: leastExperts, choices: choices,
            width: bank == .blockSparse ? block * whole(1...5) : whole(1...512),
            activation: pick(Activation.self),
            router: RouterConfiguration(
                scoring: scoring, renormalizes: flag(), weightScale: real(3), jitter: real(1),
                gumbel: !isAnnealed && flag(), biasRate: scoring == .sigmoid ? real(1) : 0,
                cosine: flag()
                    ? CosineConfiguration(width: whole(1...64), temperature: floor + real(1), floor: floor) : nil,
                groupLimit: !isAnnealed && flag() ? GroupLimit(groups: 1, chosen: 1) : nil,
                annealing: isAnnealed
                    ? DenseToSparse(start: 1 + real(3), end: real(1), steps: whole(1...99), threshold: real(1)) : nil),
            policy: hasCapacity
                ? .capacity(
                    factor: flag() ? real(4) : -real(4), minimum: whole(1...64),
                    order: pick(TokenPolicy.DropOrder.self), evaluation: flag() ? real(4) : nil)
                : .dropless,
            bank: bank, blockSize: block,
            losses: RouterLosses(
                balance: real(1), scope: .layer, z: real(1), importance: real(1)),
            sharedWidth: whole(0...128), isResidual: flag(), dropout: bank == .blockSparse ? 0 : real(1))
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
            tiedEmbeddings: flag(), initialDeviation: real(1), initialScale: flag() ? real(1) : nil)
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
