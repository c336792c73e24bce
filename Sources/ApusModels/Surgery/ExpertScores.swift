import ApusExperts
public import ApusKernels
import ApusTensor

// Shape letters: D model width, E experts.

/// What each expert of a model is worth, for ``Pruning``: higher ones stay. By layer, one score for each expert.
public struct ExpertScores: Sendable, Equatable {
    /// One for each expert, by layer.
    public let values: [Int: [Double]]

    /// Scores by layer.
    public init(_ values: [Int: [Double]]) { self.values = values }

    /// How often each expert was chosen, as its share of its layer's choices, so that layers with different K compare
    /// (Z-code M3, Kim et al. 2021).
    ///
    /// - Parameter choices: By layer, how many times each expert was chosen.
    public init(utilization choices: [Int: [Int]]) {
        values = choices.mapValues { counts in
            let sum = Double(max(counts.reduce(0, +), 1))
            return counts.map { Double($0) / sum }
        }
    }

    /// A uniform draw for each expert, keyed by seed, layer and expert.
    public init(randomOf model: ModelConfiguration, seed: UInt64) {
        values = Dictionary(
            uniqueKeysWithValues: model.mixtureLayers.map { layer in
                let stream = RandomStream(seed: seed, purpose: .expertSelection, layer: layer)
                let experts = model.moe(layer: layer)?.experts ?? 0
                return (layer, (0..<experts).map { Double(stream.word(at: UInt64($0))) })
            })
    }

    /// How much the norm of each expert's row of the router has changed since `base`, up or down: experts whose row has
    /// hardly changed have learnt the least (Chowdhury et al. 2024, arXiv 2405.16646).
    ///
    /// - Throws: ``SurgeryError`` with the first difference of two models that are not the same but for how they train, and
    ///   for routers that are not known; ``FileError``; ``TensorError`` when memory runs out.
    public init(routerNormsOf folder: ModelFolder, since base: ModelFolder, backend: any Backend) throws {
        let (now, before) = (try StoredWeights(folder), try StoredWeights(base))
        try now.requireKnownRouters()
        if let difference = now.configuration.firstDifference(
            from: before.configuration.practice(as: now.configuration))
        {
            throw SurgeryError.otherBase(
                folder: now.path, base: before.path, key: difference.key, own: difference.own,
                other: difference.other)
        }
        var values: [Int: [Double]] = [:]
        for layer in now.configuration.mixtureLayers {
            let name = "model.layers.\(layer).mlp.gate.weight"
            let norms = try [now, before].map { try $0.rowNorms(of: name, backend: backend) }
            values[layer] = zip(norms[0], norms[1]).map { abs($0 - $1) }
        }
        self.values = values
    }
}

extension StoredWeights {
    /// The Euclidean norm of each row of a matrix.
    fileprivate func rowNorms(of name: String, backend: any Backend) throws -> [Double] {
        let elements = try elements(of: name, backend: backend)
        let wide = try backend.empty(elements.shape, .f32, .workspace)
        try backend.convert(elements, into: wide)
        let values = try backend.floats(wide)
        return stride(from: 0, to: values.count, by: configuration.width).map { first in
            values[first..<first + configuration.width].reduce(0) { $0 + Double($1) * Double($1) }.squareRoot()
        }
    }
}
