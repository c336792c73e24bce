import ApusExperts
import ApusKernels
import ApusNN
import ApusTensor

// Shape letters: E experts.

/// What the tensors beside the experts of a mixture mean to its experts.
///
/// A router that has tensors of other names is refused: nobody has said which of their elements belong to which expert.
enum RouterTensor {
    /// A row, or an element, for each expert: (E, ...).
    case eachExpert
    /// Nothing: it is of the layer as a whole.
    case shared

    /// The kind of a router's tensor; `nil` for one that is not known.
    init?(_ parameter: ParameterDescription) {
        guard let layer = parameter.layer else { return nil }
        switch parameter.name {
        case "model.layers.\(layer).mlp.gate.weight", "model.layers.\(layer).mlp.gate.e_score_correction_bias":
            self = .eachExpert
        case "model.layers.\(layer).mlp.coefficient.weight", "model.layers.\(layer).mlp.coefficient.bias":
            self = .shared
        default: return nil
        }
    }
}

extension StoredWeights {
    /// All elements of a tensor.
    func whole(_ parameter: ParameterDescription, source: Int = 0) -> StoredRun {
        StoredRun(source: source, name: parameter.name, elements: 0..<parameter.count)
    }

    /// - Throws: ``SurgeryError/unknownRouter(folder:tensor:)`` for the first tensor whose experts are not known;
    ///   ``SurgeryError/sharedExperts(folder:layer:owner:)`` for the first layer without experts of its own.
    func requireKnownRouters() throws(SurgeryError) {
        for layer in configuration.feedForward.indices {
            guard let moe = configuration.moe(layer: layer) else { continue }
            if let owner = moe.parametersOf { throw .sharedExperts(folder: path, layer: layer, owner: owner) }
            if let groups = moe.router.groupLimit?.groups {
                throw .groupedExperts(folder: path, layer: layer, groups: groups)
            }
        }
        for parameter in parameters where parameter.role == .router && RouterTensor(parameter) == nil {
            throw .unknownRouter(folder: path, tensor: parameter.name)
        }
    }

    /// The root mean square of a tensor's elements.
    func rootMeanSquare(of run: StoredRun, backend: any Backend) throws -> Float {
        let sum = try backend.empty(Shape(1), .f32, .workspace)
        var total = 0.0
        try forEachTensor(of: run.name, run.elements, as: .f32, backend: backend) { piece in
            try backend.multiply(piece, piece, into: piece)
            try backend.sum(piece, factor: 1, into: sum)
            total += Double(try backend.floats(sum)[0])
        }
        return Float((total / Double(max(run.elements.count, 1))).squareRoot())
    }
}
