import ApusKernels
import ApusModels

/// The weights of a stored model that a run begins with instead of draws: recipe key `training.start`.
struct StartingWeights {
    private let folder: ModelFolder

    /// Opens the folder of a model or a run, and compares the model with the recipe's. How it is trained may differ.
    ///
    /// - Throws: ``StartError``, ``FileError`` and what else `ModelFolder` throws.
    init(_ path: String, of model: ModelConfiguration) throws {
        folder = try ModelFolder(RunFolder.model(at: path).folder)
        let stored = folder.configuration.configuration.practice(as: model)
        if let difference = stored.firstDifference(from: model) {
            throw StartError.different(
                folder: path, key: difference.key, stored: difference.own, asked: difference.other)
        }
    }

    /// Fills the weights, or this rank's part of them.
    func load(into model: Transformer, backend: any Backend) throws {
        try folder.loadWeights(into: model.store, backend: backend)
    }
}

/// Why a run cannot begin with the weights of a folder.
public enum StartError: Error, Sendable, Equatable {
    /// It holds another model than the recipe describes; `key` is one of its `config.json`.
    case different(folder: String, key: String, stored: String, asked: String)
}

extension StartError: CustomStringConvertible {
    /// One line: what does not fit, and what would.
    public var description: String {
        switch self {
        case .different(let folder, let key, let stored, let asked):
            "training.start '\(folder)' holds a model whose \(key) is \(stored), and the recipe's is \(asked): "
                + "describe the same model, as the recipe.yaml beside its weights may, or leave training.start out"
        }
    }
}
