import ApusTestSupport
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
    static let folder = URL(fileURLWithPath: (repositoryRoot() ?? "") + "/Recipes")

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
