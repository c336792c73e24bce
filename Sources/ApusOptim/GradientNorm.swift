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
    ///
    /// The scale is NaN, and the step with it held back, where a gradient or the `loss` (1) `f32` is not finite or the
    /// `previous` step's scale was not.
    public init(
        _ store: ParameterStore, loss: Tensor? = nil, previous: Tensor? = nil, limit: Float, backend: any Backend
    ) throws {
        precondition(!store.gradientParts.isEmpty, "the store is not trained")
        let squares = try backend.empty(Shape(1), .f32)
        try backend.gradientSquares(store.gradientParts.map { try $0.gradients() }, into: squares)
        try self.init(sumOfSquares: squares, loss: loss, previous: previous, limit: limit, backend: backend)
    }

    /// The norm that follows from a sum of squares (1) `f32`, such as that over the gradients of all ranks.
    public init(
        sumOfSquares: Tensor, loss: Tensor? = nil, previous: Tensor? = nil, limit: Float, backend: any Backend
    ) throws {
        self.sumOfSquares = sumOfSquares
        scale = try backend.empty(Shape(1), .f32)
        try backend.clipFactor(sumOfSquares: sumOfSquares, loss: loss, previous: previous, limit: limit, into: scale)
    }
}
