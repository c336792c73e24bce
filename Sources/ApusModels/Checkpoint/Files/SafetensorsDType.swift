public import ApusTensor

/// An element format as safetensors names it, with its size, so that even a format Apus does not compute with can be
/// measured and named.
public enum SafetensorsDType: String, Sendable, CaseIterable, Hashable {
    case f64 = "F64"
    case f32 = "F32"
    case f16 = "F16"
    case bf16 = "BF16"
    case c64 = "C64"
    case i64 = "I64"
    case i32 = "I32"
    case i16 = "I16"
    case i8 = "I8"
    case u64 = "U64"
    case u32 = "U32"
    case u16 = "U16"
    case u8 = "U8"
    case bool = "BOOL"
    case f8e4m3 = "F8_E4M3"
    case f8e5m2 = "F8_E5M2"
    case f8e8m0 = "F8_E8M0"
    case f8e4m3fnuz = "F8_E4M3FNUZ"
    case f8e5m2fnuz = "F8_E5M2FNUZ"
    case f6e2m3 = "F6_E2M3"
    case f6e3m2 = "F6_E3M2"
    case f4 = "F4"

    /// Size of one element in bits; the packed formats take less than a byte.
    public var bitCount: Int {
        switch self {
        case .f64, .i64, .u64, .c64: 64
        case .f32, .i32, .u32: 32
        case .f16, .bf16, .i16, .u16: 16
        case .i8, .u8, .bool, .f8e4m3, .f8e5m2, .f8e8m0, .f8e4m3fnuz, .f8e5m2fnuz: 8
        case .f6e2m3, .f6e3m2: 6
        case .f4: 4
        }
    }

    /// The format Apus computes with, or nil if there is none.
    public var dtype: DType? {
        switch self {
        case .f32: .f32
        case .bf16: .bf16
        case .i32: .i32
        case .u8: .u8
        default: nil
        }
    }

    /// The name safetensors gives a format of ours.
    public init(_ dtype: DType) {
        switch dtype {
        case .f32: self = .f32
        case .bf16: self = .bf16
        case .i32: self = .i32
        case .u8: self = .u8
        }
    }

    /// The names Apus reads without conversion, for messages.
    static let readableNames = allCases.filter { $0.dtype != nil }.map(\.rawValue).joined(separator: ", ")

    /// Bytes of a tensor, or nil if the count overflows or does not end on a byte.
    ///
    /// Zero-size dimensions do not hide an overflow of the others: strides are computed from those later.
    func byteCount(shape: [Int]) -> Int? {
        var bits = bitCount
        for size in shape {
            let (product, overflow) = bits.multipliedReportingOverflow(by: max(size, 1))
            if overflow { return nil }
            bits = product
        }
        if shape.contains(0) { return 0 }
        return bits % 8 == 0 ? bits / 8 : nil
    }
}
