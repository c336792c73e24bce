public import ApusTensor

/// A value in a forward pass: a tensor, and the slot of a tape that its gradient will arrive in.
///
/// A variable without a slot is a constant: nothing flows back into it.
public struct Variable: Sendable {
    /// The value.
    public let tensor: Tensor
    /// The gradient slot on the tape that recorded this value; `nil` for a constant.
    let slot: Int?

    init(tensor: Tensor, slot: Int?) {
        self.tensor = tensor
        self.slot = slot
    }

    /// A value that no gradient flows into.
    public static func constant(_ tensor: Tensor) -> Variable { Variable(tensor: tensor, slot: nil) }

    /// Extents of the value.
    public var shape: Shape { tensor.shape }
    /// Element type of the value.
    public var dtype: DType { tensor.dtype }
    /// Whether a gradient is wanted.
    public var needsGradient: Bool { slot != nil }
}
