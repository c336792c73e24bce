import ApusTensor

/// The flat buffers of a group of parameters.
///
/// Parameters refer to them and not to their group, which refers to its parameters: a model that nobody holds any more
/// gives its memory back.
final class GroupBuffers {
    /// All weights, dense.
    let weights: Tensor
    /// All gradients, in the order of storage; none when the model is not trained.
    let gradientParts: [GradientPart]

    init(weights: Tensor, gradientParts: [GradientPart]) {
        self.weights = weights
        self.gradientParts = gradientParts
    }

    func weights(at offset: Int, _ shape: Shape) -> Tensor { view(weights, offset, shape) }

    func gradient(at offset: Int, _ shape: Shape) throws -> Tensor? {
        try part(at: offset).map { part in
            let first = offset - part.range.lowerBound
            return view(try part.complete(first..<first + shape.count), 0, shape)
        }
    }

    func gradientTarget(at offset: Int, _ shape: Shape) throws -> (gradient: Tensor, adds: Bool)? {
        try part(at: offset).map { part in
            let first = offset - part.range.lowerBound
            let (gradient, adds) = try part.target(first..<first + shape.count)
            return (view(gradient, 0, shape), adds)
        }
    }

    private func part(at offset: Int) -> GradientPart? { gradientParts.last { $0.range.lowerBound <= offset } }

    private func view(_ buffer: Tensor, _ offset: Int, _ shape: Shape) -> Tensor {
        Tensor(
            storage: buffer.storage, byteOffset: buffer.byteOffset + buffer.dtype.byteCount(elements: offset),
            shape: shape, dtype: buffer.dtype)
    }
}
