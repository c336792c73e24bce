public import ApusModels
import ApusTensor

extension Recipe {
    /// The name of the recipe that a run or a model's folder carries.
    public static let fileName = "recipe.yaml"

    /// The recipe that a model was trained by: the one beside its weights, or that of the run whose checkpoint it is.
    ///
    /// - Parameter folder: Of the model itself.
    /// - Returns: `nil` where there is none.
    /// - Throws: ``Recipe/Error`` for one that cannot be read; ``FileError``.
    public init?(ofModel folder: String) throws {
        let above = folder.split(separator: "/", omittingEmptySubsequences: false)
        var candidates = ["\(folder)/\(Self.fileName)"]
        if above.count >= 2, above.last?.hasPrefix("step-") == true, above[above.count - 2] == "checkpoints" {
            candidates.append((above.dropLast(2) + [Self.fileName[...]]).joined(separator: "/"))
        }
        guard let path = try candidates.first(where: { try FolderTree.kind($0) != nil }) else { return nil }
        self = try Recipe(contentsOf: path)
    }

    /// This recipe for another model, whose weights `folder` holds: a run by it begins with them.
    ///
    /// - Returns: `nil` where no recipe describes the model, for its layers differ in more than a recipe can say.
    public func successor(training model: ModelConfiguration, from folder: String) -> Recipe? {
        var recipe = self
        recipe.model = model
        recipe.training.start = folder
        // The teacher may stay, but the weights are no longer to begin as its own.
        if recipe.distillation?.start == .teacher {
            recipe.distillation?.start = .random
            recipe.distillation?.layers = nil
        }
        guard let read = try? Recipe(yaml: recipe.resolvedYAML()), read == recipe else { return nil }
        return recipe
    }
}
