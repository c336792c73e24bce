import ApusExperts
import ApusNN

// Shape letters: D model width, E experts.

/// A model with some of its experts: the rows of its routers and the experts that stay are cut out and numbered anew, in their
/// order; all else stays (expert pruning, Z-code M3, Kim et al. 2021).
public struct Pruning: Sendable, Equatable {
    /// The experts that stay of each mixture, ascending, by layer.
    public let kept: [Int: [Int]]

    /// Keeps the experts with the highest scores that `budget` has room for.
    ///
    /// - Throws: ``SurgeryError``, as ``ExpertBudget/check(_:folder:)``.
    public init(
        of folder: ModelFolder, by scores: ExpertScores, keeping budget: ExpertBudget
    ) throws(SurgeryError) {
        let model = folder.configuration.configuration
        try budget.check(model, folder: folder.path)
        for layer in model.mixtureLayers {
            precondition(scores.values[layer]?.count == model.moe(layer: layer)?.experts, "a score for each expert")
        }
        kept = budget.choose(scores.values, model)
    }

    /// - Throws: ``SurgeryError`` for a model without experts, or with a router that is not known; ``FileError``,
    ///   ``TensorMapError``. To be asked before scores that take long are computed.
    public static func requirePrunable(_ folder: ModelFolder, _ budget: ExpertBudget) throws {
        try budget.check(folder.configuration.configuration, folder: folder.path)
        try StoredWeights(folder).requireKnownRouters()
    }

    /// The model that becomes of `folder`'s, decided and checked.
    ///
    /// - Throws: ``SurgeryError`` for routers that are not known; ``ModelConfigurationError``, ``FileError``,
    ///   ``TensorMapError``.
    public func surgery(of folder: ModelFolder) throws -> ModelSurgery {
        let source = try StoredWeights(folder)
        try source.requireKnownRouters()
        let configuration = source.configuration.withExperts(kept.mapValues(\.count))
        let stored = Dictionary(uniqueKeysWithValues: source.parameters.map { ($0.name, $0) })
        return try ModelSurgery(configuration, of: [source]) { parameter in
            guard let layer = parameter.layer, let kept = kept[layer] else {
                return .runs([try source.run(of: parameter, among: stored)])
            }
            if let expert = parameter.expert {
                let name = parameter.name.replacing(
                    ".experts.\(expert).", with: ".experts.\(kept[expert]).", maxReplacements: 1)
                guard let own = stored[name] else { preconditionFailure("an expert that stays is there") }
                return .runs([source.whole(own)])
            }
            guard parameter.role == .router, case .eachExpert? = RouterTensor(parameter) else {
                return .runs([try source.run(of: parameter, among: stored)])
            }
            // (E, D), or (E): what belongs to an expert is one run.
            let row = parameter.count / max(kept.count, 1)
            return .runs(
                kept.map { StoredRun(source: 0, name: parameter.name, elements: $0 * row..<($0 + 1) * row) })
        }
    }
}
