/// The first 64 bytes of a file of images. All numbers are little-endian.
///
/// | offset | bytes | holds |
/// |---|---|---|
/// | 0 | 8 | `apusimgs` |
/// | 8 | 4 | version, 1 |
/// | 12 | 4 | rows of an image |
/// | 16 | 4 | columns of an image |
/// | 20 | 4 | values of a pixel |
/// | 24 | 8 | images |
/// | 32 | 4 | CRC-32 of everything behind the header |
/// | 36 | 28 | zero |
///
/// Then 2 bytes for each image, its class; then the images, row by row, a byte for each value of a pixel.
struct ImageHeader: Equatable {
    static let byteCount = 64
    static let magic = Array("apusimgs".utf8)
    static let version: UInt32 = 1
    private static let mostOfSide = 1 << 14

    var height: Int
    var width: Int
    var channels: Int
    var count: Int
    var checksum: UInt32

    /// Bytes of one image.
    var imageBytes: Int { height * width * channels }
    /// Where the images begin.
    var pixelOffset: Int { Self.byteCount + 2 * count }
    /// Bytes of the whole file.
    var fileBytes: Int { pixelOffset + count * imageBytes }
}

extension ImageHeader {
    /// The 64 bytes.
    var bytes: [UInt8] {
        var bytes = Self.magic
        func append(_ value: some FixedWidthInteger) {
            withUnsafeBytes(of: value.littleEndian) { bytes.append(contentsOf: $0) }
        }
        for word in [Self.version, UInt32(height), UInt32(width), UInt32(channels)] { append(word) }
        append(UInt64(count))
        append(checksum)
        return bytes + [UInt8](repeating: 0, count: Self.byteCount - bytes.count)
    }

    /// Reads the header of a file of `fileBytes` bytes.
    ///
    /// - Throws: ``DataError/badImages(path:reason:)`` if it is none, or does not describe a file of this size.
    init(_ bytes: UnsafeRawBufferPointer, fileBytes: Int, path: String) throws(DataError) {
        func fault(_ reason: String) -> DataError { .badImages(path: path, reason: reason) }
        guard bytes.prefix(Self.magic.count).elementsEqual(Self.magic) else { throw fault("it is no file of images") }
        guard bytes.count >= Self.byteCount else { throw fault("it ends within its header") }
        func word(_ offset: Int) -> UInt32 {
            UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: UInt32.self))
        }
        guard word(8) == Self.version else {
            throw fault("it has version \(word(8)), this program reads \(Self.version)")
        }
        let sides = [word(12), word(16), word(20)].map { Int($0) }
        guard sides.allSatisfy({ (1...Self.mostOfSide).contains($0) }) else {
            throw fault("its header has images of \(sides[0]) x \(sides[1]) pixels with \(sides[2]) values")
        }
        let count = UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: 24, as: UInt64.self))
        // No sum or product below overflows: an image has less than 2^42 bytes.
        guard count > 0, count < 1 << 20 else { throw fault("its header counts \(count) images") }
        guard bytes[36..<Self.byteCount].allSatisfy({ $0 == 0 }) else { throw fault("its header is damaged") }
        self.init(height: sides[0], width: sides[1], channels: sides[2], count: Int(count), checksum: word(32))
        guard self.fileBytes == fileBytes else {
            throw fault("its header describes \(self.fileBytes) bytes and it has \(fileBytes)")
        }
    }
}

/// The CRC-32 of zip and PNG (reflected polynomial 0xEDB88320), which every scripting language has.
func crc32(_ bytes: UnsafeRawBufferPointer) -> UInt32 {
    let table = (0..<256).map { index in
        (0..<8).reduce(UInt32(index)) { value, _ in
            let half = value >> 1
            return value & 1 == 1 ? half ^ 0xEDB8_8320 : half
        }
    }
    var sum = UInt32.max
    for byte in bytes {
        let index = UInt8(truncatingIfNeeded: sum) ^ byte
        sum = table[Int(index)] ^ (sum >> 8)
    }
    return ~sum
}
