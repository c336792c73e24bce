public import ApusKernels
public import ApusNN
public import ApusTensor

/// The norm of all gradients together, and the factor that clips it. Both stay on the device.
public struct GradientNorm {
    /// (1) `f32`: the sum of squares of every gradient.
    public let sumOfSquares: Tensor
    /// (1) `f32`: what gradients are multiplied by.
    public let scale: Tensor

    /// Measures a store's gradients; `limit` 0 or less does not clip.
    public init(_ store: ParameterStore, limit: Float, backend: any Backend) throws {
        sumOfSquares = try backend.zeros(Shape(1), .f32)
        scale = try backend.empty(Shape(1), .f32)
        for group in store.groups {
            guard let gradients = group.gradients else { preconditionFailure("the store is not trained") }
            try backend.sumOfSquares(gradients, into: sumOfSquares, adds: true)
        }
        try backend.clipFactor(sumOfSquares: sumOfSquares, limit: limit, into: scale)
    }
}
