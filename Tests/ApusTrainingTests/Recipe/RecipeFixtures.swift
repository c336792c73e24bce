import ApusTraining
import Foundation

/// Small recipes and helpers that the tests of this folder share.
enum Fixture {
    /// A recipe that is right, and short enough to see what a change to it breaks.
    static let good = """
        seed: 1
        model:
          layers: 4
          width: 64
          heads: 4
          key_value_heads: 2
          feed_forward_width: 128
          experts:
            count: 8
            choices: 2
            width: 32
            every: 2
        data:
          path: text.txt
          sequence_length: 128
        training:
          steps: 100
          batch: 8
        """

    /// The folder of recipes that come with the project.
    static let folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent().deletingLastPathComponent().appendingPathComponent("Recipes")

    /// The paths of those recipes.
    static var shipped: [String] {
        let names = (try? FileManager.default.contentsOfDirectory(atPath: folder.path)) ?? []
        return names.filter { $0.hasSuffix(".yaml") }.sorted().map { folder.appendingPathComponent($0).path }
    }

    /// What reading `yaml` complains about; empty when it is accepted.
    static func complaint(_ yaml: String, overrides: [String] = []) -> String {
        do throws(Recipe.Error) {
            _ = try Recipe(yaml: yaml, file: "test.yaml", overrides: overrides)
            return ""
        } catch {
            return error.description
        }
    }
}

/// SplitMix64: the same draws on every run and machine.
struct SeededGenerator: RandomNumberGenerator {
    var state: UInt64

    init(seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }
}
