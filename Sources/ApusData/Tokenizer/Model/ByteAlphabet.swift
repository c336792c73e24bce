/// The 256 visible characters by which byte-level vocabularies write down bytes.
///
/// Printable characters of Latin-1 stand for their own value; the other 68 bytes take U+0100 and up, in order
/// (Radford et al., "Language Models are Unsupervised Multitask Learners", 2019, and the code published with it).
enum ByteAlphabet {
    /// The scalar that stands for each byte.
    static let scalars: [UInt32] = {
        var next: UInt32 = 0x100
        return (0..<256).map { byte in
            if (0x21...0x7E).contains(byte) || (0xA1...0xAC).contains(byte) || (0xAE...0xFF).contains(byte) {
                return UInt32(byte)
            }
            defer { next += 1 }
            return next
        }
    }()

    /// The byte for each scalar below U+0144, or -1.
    private static let bytes: [Int16] = {
        var table = [Int16](repeating: -1, count: 0x144)
        for (byte, scalar) in scalars.enumerated() { table[Int(scalar)] = Int16(byte) }
        return table
    }()

    /// Bytes written in the alphabet, as UTF-8.
    static func text(of bytes: some Sequence<UInt8>) -> [UInt8] {
        var text: [UInt8] = []
        for byte in bytes { UTF8Scalar.append(scalars[Int(byte)], to: &text) }
        return text
    }

    /// The bytes that a text in the alphabet stands for; nil if one of its characters is none of the 256.
    static func bytes(of text: UnsafeBufferPointer<UInt8>) -> [UInt8]? {
        guard let start = text.baseAddress else { return [] }
        var result: [UInt8] = []
        result.reserveCapacity(text.count)
        var place = 0
        while place < text.count {
            let (scalar, length) = UTF8Scalar.decode(start, place, text.count)
            guard scalar < 0x144, bytes[Int(scalar)] >= 0 else { return nil }
            result.append(UInt8(bytes[Int(scalar)]))
            place += length
        }
        return result
    }
}
