public import ApusTensor

/// Explicit conversions from stored formats Apus does not compute with.
extension SafetensorsFile {
    /// Values of an I32 or I64 tensor, row-major.
    ///
    /// - Throws: `noSuchTensor`, `unsupportedDType`, or `valueOutOfRange` for the first I64 that does not fit.
    public func int32Values(_ name: String) throws(FileError) -> [Int32] {
        let entry = try entry(name)
        guard entry.stored == .i32 || entry.stored == .i64 else { throw unsupported(entry, "I32, I64") }
        return try bytes(name).withUnsafeBytes { bytes throws(FileError) in
            var values: [Int32] = []
            values.reserveCapacity(entry.count)
            for element in 0..<entry.count {
                guard entry.stored == .i64 else {
                    values.append(Int32(littleEndian: bytes.loadUnaligned(fromByteOffset: element * 4, as: Int32.self)))
                    continue
                }
                let wide = Int64(littleEndian: bytes.loadUnaligned(fromByteOffset: element * 8, as: Int64.self))
                guard let value = Int32(exactly: wide) else {
                    throw .valueOutOfRange(path: path, tensor: name, element: element, value: wide)
                }
                values.append(value)
            }
            return values
        }
    }

    /// Values of an F32, BF16 or F16 tensor as f32, row-major.
    ///
    /// Exact: f32 holds every value of the other two.
    ///
    /// - Throws: `noSuchTensor`, `unsupportedDType`.
    public func floatValues(_ name: String) throws(FileError) -> [Float] {
        let entry = try entry(name)
        let bytes = try bytes(name)
        switch entry.stored {
        case .f32: return bytes.map(entry.count, of: UInt32.self) { Float(bitPattern: $0) }
        case .bf16: return bytes.map(entry.count, of: UInt16.self) { Float(bitPattern: UInt32($0) << 16) }
        case .f16: return bytes.map(entry.count, of: UInt16.self, float(half:))
        default: throw unsupported(entry, "F32, BF16, F16")
        }
    }

    private func unsupported(_ entry: SafetensorsEntry, _ readable: String) -> FileError {
        .unsupportedDType(path: path, tensor: entry.name, found: entry.stored.rawValue, readable: readable)
    }
}

/// The f32 value of an IEEE 754 half given by its bits.
func float(half bits: UInt16) -> Float {
    let sign = UInt32(bits & 0x8000) << 16
    let magnitude = UInt32(bits & 0x7FFF) << 13
    // Infinity and NaN keep their payload under f32's all-ones exponent.
    if bits & 0x7C00 == 0x7C00 { return Float(bitPattern: sign | 0x7F80_0000 | magnitude) }
    // 2^112 moves the exponent bias from 15 to 127, and makes subnormal halves normal on the way.
    let scaled = Float(bitPattern: magnitude) * Float(bitPattern: (127 + 112) << 23)
    return Float(bitPattern: sign | scaled.bitPattern)
}

extension FileBytes {
    /// Converts `count` little-endian integers.
    fileprivate func map<Bits: FixedWidthInteger & BitwiseCopyable>(
        _ count: Int, of type: Bits.Type, _ convert: (Bits) -> Float
    ) -> [Float] {
        withUnsafeBytes { bytes in
            [Float](unsafeUninitializedCapacity: count) { output, initialized in
                for element in 0..<count {
                    let offset = element * MemoryLayout<Bits>.size
                    let bits = Bits(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: Bits.self))
                    output.initializeElement(at: element, to: convert(bits))
                }
                initialized = count
            }
        }
    }
}
