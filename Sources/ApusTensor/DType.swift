/// The element type of a tensor's storage.
///
/// A format states its own size through ``byteCount(elements:)``; nothing may assume `count * stride`, because packed
/// and scaled formats (FP8 with block scales, 4-bit) will join this list.
public enum DType: UInt8, Sendable, CaseIterable, Hashable {
    /// IEEE 754 single precision.
    case f32
    /// bfloat16: the upper half of an `f32`.
    case bf16
    /// Signed 32-bit integer: token ids, expert ids, offsets, permutations.
    case i32
    /// Unsigned byte: masks and raw bytes.
    case u8

    /// Bytes of one element.
    public var byteCount: Int {
        switch self {
        case .f32, .i32: 4
        case .bf16: 2
        case .u8: 1
        }
    }

    /// Bytes that `elements` consecutive elements take in storage.
    public func byteCount(elements: Int) -> Int { elements * byteCount }

    /// Whether arithmetic kernels accept this type for activations and weights.
    public var isFloating: Bool { self == .f32 || self == .bf16 }
}

extension DType: CustomStringConvertible {
    /// The name used in recipes and messages: `f32`, `bf16`, `i32`, `u8`.
    public var description: String {
        switch self {
        case .f32: "f32"
        case .bf16: "bf16"
        case .i32: "i32"
        case .u8: "u8"
        }
    }
}
