import ApusTensor

// Shape letters: N images, P pixel values of a patch, S tokens of an image.

/// Images of one size, each with its class, in memory.
public struct ImageSet: Sendable {
    /// Where the images are from.
    public let path: String
    /// Rows of an image, in pixels.
    public let height: Int
    /// Columns of an image, in pixels.
    public let width: Int
    /// Values of a pixel.
    public let channels: Int
    /// (N): the class of each image, from 0.
    public let labels: ArraySlice<Int32>
    /// Tells a resumed run whether the images have changed; that of the whole file, also in a part.
    public let checksum: UInt64
    /// The images of the whole file, row by row.
    private let pixels: [UInt8]

    /// What a token has in place of each pixel's value where it stands for no patch: the class token.
    public static let blank: Int32 = 256
    /// Most bytes of a file: images are held in memory whole.
    private static let mostBytes = 1 << 33

    /// Reads a file of images; `Scripts/fetch-images.sh` writes one.
    ///
    /// - Throws: ``DataError/badImages(path:reason:)``; ``FileError`` for a file that cannot be read.
    public init(path: String) throws {
        try self.init(FileContents(path: path, atMost: Self.mostBytes))
    }

    /// - Throws: ``DataError/badImages(path:reason:)``
    init(_ file: FileContents) throws(DataError) {
        let path = file.path
        let (header, labels) = try file.withUnsafeBytes { bytes throws(DataError) in
            let header = try ImageHeader(bytes, fileBytes: bytes.count, path: path)
            let body = UnsafeRawBufferPointer(rebasing: bytes[ImageHeader.byteCount...])
            let found = crc32(body)
            guard found == header.checksum else {
                throw DataError.badImages(path: path, reason: "its bytes are not those that were written")
            }
            let labels = (0..<header.count).map {
                Int32(UInt16(littleEndian: body.loadUnaligned(fromByteOffset: 2 * $0, as: UInt16.self)))
            }
            return (header, labels)
        }
        self.init(
            path: path, height: header.height, width: header.width, channels: header.channels, labels: labels[...],
            checksum: file.withUnsafeBytes { XXH64.checksum($0) }, pixels: Array(file.bytes[header.pixelOffset...]))
    }

    private init(
        path: String, height: Int, width: Int, channels: Int, labels: ArraySlice<Int32>, checksum: UInt64,
        pixels: [UInt8]
    ) {
        self.path = path
        self.height = height
        self.width = width
        self.channels = channels
        self.labels = labels
        self.checksum = checksum
        self.pixels = pixels
    }

    /// N.
    public var count: Int { labels.count }
    /// One more than the largest class of an image.
    public var classes: Int { Int(labels.max() ?? -1) + 1 }

    /// Images `range`.
    public subscript(range: Range<Int>) -> ImageSet {
        let first = labels.startIndex
        return ImageSet(
            path: path, height: height, width: width, channels: channels,
            labels: labels[first + range.lowerBound..<first + range.upperBound], checksum: checksum, pixels: pixels)
    }

    /// The images before the last `fraction` of them, and those last ones.
    public func split(heldOut fraction: Double) -> (training: ImageSet, heldOut: ImageSet) {
        let boundary = count - Int(Double(count) * fraction)
        return (self[0..<boundary], self[boundary..<count])
    }

    /// S of patches of `size` x `size` pixels, which divides the sides.
    public func tokens(patch size: Int) -> Int { 1 + (height / size) * (width / size) }

    /// (S * P): what an embedding of patches reads of image `index`. The class token comes first and is blank; then the
    /// patches, row by row, and in each its pixels row by row.
    public func patches(of index: Int, size: Int) -> [Int32] {
        let values = size * size * channels
        var result = [Int32](repeating: Self.blank, count: values)
        result.reserveCapacity(values * tokens(patch: size))
        let image = (labels.startIndex + index) * height * width * channels
        for top in stride(from: 0, to: height, by: size) {
            for left in stride(from: 0, to: width, by: size) {
                for row in top..<top + size {
                    let first = image + (row * width + left) * channels
                    result += pixels[first..<first + size * channels].lazy.map { Int32($0) }
                }
            }
        }
        return result
    }

    /// Refuses images that a model of images of this size and number of classes cannot read.
    ///
    /// - Throws: ``DataError/badImages(path:reason:)``
    public func check(height: Int, width: Int, channels: Int, classes: Int) throws(DataError) {
        guard (self.height, self.width, self.channels) == (height, width, channels) else {
            throw .badImages(
                path: path,
                reason:
                    "its images have \(self.height) x \(self.width) pixels with \(self.channels) values, and the model's "
                    + "patches are of \(height) x \(width) with \(channels)")
        }
        guard self.classes <= classes else {
            throw .badImages(
                path: path,
                reason: "it has an image of class \(self.classes - 1), and the model \(classes) classes from 0")
        }
    }

    /// The class of image `index`.
    public func label(of index: Int) -> Int32 { labels[labels.startIndex + index] }
}

extension ImageSet {
    /// The bytes of a file of images of `height` x `width` pixels with `channels` values each.
    ///
    /// - Parameters:
    ///   - labels: (N), each below 65536.
    ///   - pixels: (N, height, width, channels).
    package static func file(
        height: Int, width: Int, channels: Int, labels: [Int], pixels: [UInt8]
    ) -> [UInt8] {
        precondition(pixels.count == labels.count * height * width * channels)
        let body = labels.flatMap { [UInt8(truncatingIfNeeded: $0), UInt8(truncatingIfNeeded: $0 >> 8)] } + pixels
        let header = ImageHeader(
            height: height, width: width, channels: channels, count: labels.count,
            checksum: body.withUnsafeBytes { crc32($0) })
        return header.bytes + body
    }
}
