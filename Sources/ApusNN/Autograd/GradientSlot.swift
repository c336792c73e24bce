public import ApusTensor

/// Where the gradient of a variable goes, without the variable's value: what an adjoint keeps of an input that it
/// does not read.
public struct GradientSlot: Sendable {
    /// Extents of the gradient.
    public let shape: Shape
    /// Element type of the gradient.
    public let dtype: DType
    let index: Int?

    /// Where gradients of `variable` go.
    public init(of variable: Variable) { self.init(of: variable, shape: variable.shape) }

    /// Where gradients of `variable` go when they have another shape than its value: those of an exchange under way.
    init(of variable: Variable, shape: Shape) {
        self.shape = shape
        dtype = variable.dtype
        index = variable.slot
    }
}

extension GradientFlow {
    /// Adds `gradient` to what has arrived at `slot`.
    ///
    /// The tensor may be handed on as it is: do not write it later.
    public func accumulate(_ gradient: Tensor, into slot: GradientSlot) throws {
        guard let index = slot.index else { return }
        precondition(gradient.shape == slot.shape, "a gradient of \(gradient.shape) for a value of \(slot.shape)")
        try tape.accumulate(gradient, into: index)
    }
}
