import ApusExperts
import ApusNN
import ApusTensor

// Shape letters: E experts.

/// Two trained models as one with the experts of both (aggregation of experts, Z-code M3, Kim et al. 2021): what
/// they share in kind is averaged, routers' rows are put one below the other, and experts are united, the first model's
/// before the second's.
public struct Aggregation: Sendable, Equatable {
    /// The first model's share of every average, 0 to 1.
    public var share: Float

    /// Equal shares by default.
    public init(share: Float = 0.5) { self.share = share }

    /// The model that becomes of two, decided and checked. How it trains is taken from the first.
    ///
    /// - Throws: ``SurgeryError`` with the first difference of two models that differ in more than numbers of experts or how
    ///   they train, for routers that are not known, and for models without experts; ``ModelConfigurationError`` for more
    ///   experts than a layer may have; ``FileError``, ``TensorMapError``.
    public func surgery(of first: ModelFolder, _ second: ModelFolder) throws -> ModelSurgery {
        guard (0...1).contains(share) else {
            throw SurgeryError.wrongOption(name: "the first model's share", found: "\(share)", wanted: "from 0 to 1")
        }
        let sources = [try StoredWeights(first), try StoredWeights(second)]
        let (one, two) = (sources[0], sources[1])
        try requireAlike(one, two)
        for source in sources { try source.requireKnownRouters() }
        let counts = Dictionary(
            uniqueKeysWithValues: one.configuration.mixtureLayers.map { layer in
                (layer, sources.map { $0.configuration.moe(layer: layer)?.experts ?? 0 })
            })
        let configuration = one.configuration.withExperts(counts.mapValues { $0.reduce(0, +) })
        let stored = sources.map { Dictionary(uniqueKeysWithValues: $0.parameters.map { ($0.name, $0) }) }
        return try ModelSurgery(configuration, of: sources) { parameter in
            if let layer = parameter.layer, let expert = parameter.expert, let counts = counts[layer] {
                let source = expert < counts[0] ? 0 : 1
                let name = parameter.name.replacing(
                    ".experts.\(expert).", with: ".experts.\(expert - source * counts[0]).", maxReplacements: 1)
                return .runs([sources[source].whole(try Self.require(name, stored[source], one), source: source)])
            }
            let (own, other) = (
                try Self.require(parameter.name, stored[0], one), try Self.require(parameter.name, stored[1], two)
            )
            let runs = (one.whole(own), two.whole(other, source: 1))
            if parameter.role == .router, case .eachExpert? = RouterTensor(parameter) {
                return .runs([runs.0, runs.1])
            }
            return .average(runs.0, runs.1, share: share)
        }
    }

    private static func require(
        _ name: String, _ stored: [String: ParameterDescription], _ source: StoredWeights
    ) throws(SurgeryError) -> ParameterDescription {
        guard let parameter = stored[name] else { throw .unknownRouter(folder: source.path, tensor: name) }
        return parameter
    }

    /// Compares all that is to be averaged: sizes by `config.json`, and what the ids stand for.
    private func requireAlike(_ one: StoredWeights, _ two: StoredWeights) throws {
        let layers = one.configuration.mixtureLayers
        if layers.isEmpty { throw SurgeryError.noMixture(folder: one.path) }
        let counts = Dictionary(
            uniqueKeysWithValues: layers.map { ($0, one.configuration.moe(layer: $0)?.experts ?? 0) })
        let comparable = two.configuration.practice(as: one.configuration).withExperts(counts)
        let expected = one.configuration.withExperts(counts)
        if let difference = expected.firstDifference(from: comparable) {
            throw SurgeryError.different(
                first: one.path, second: two.path, key: difference.key, own: difference.own, other: difference.other)
        }
        for name in ["tokenizer.json", "tokenizer.model"] {
            let contents = try [one, two].map { source -> FileContents? in
                let path = "\(source.path)/\(name)"
                return try FolderTree.kind(path) == nil ? nil : try FileContents(path: path)
            }
            guard let own = contents[0], let other = contents[1], own.bytes != other.bytes else { continue }
            throw SurgeryError.different(
                first: one.path, second: two.path, key: name, own: "a file of \(own.bytes.count) bytes",
                other: "another, of \(other.bytes.count) bytes")
        }
    }
}
