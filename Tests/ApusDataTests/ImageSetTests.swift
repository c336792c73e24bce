import ApusTensor
import ApusTestSupport
import Testing

@testable import ApusData

/// Files of images, the patches that they become, and the batches of these.
@Suite struct ImageSetTests {
    private let scratch: ScratchFolder

    init() throws { scratch = try ScratchFolder() }

    /// Three images of 2 x 4 pixels with two values each; the values count up.
    private static let pixels = (0..<48).map { UInt8($0) }
    private static let labels = [1, 0, 300]
    private static let file = ImageSet.file(height: 2, width: 4, channels: 2, labels: labels, pixels: pixels)

    private func open(_ bytes: [UInt8]) throws -> ImageSet { try ImageSet(path: scratch.write("a.images", bytes)) }

    private func refusal(_ bytes: [UInt8]) -> String {
        do {
            _ = try open(bytes)
            return ""
        } catch DataError.badImages(_, let reason) {
            return reason
        } catch {
            return "another error: \(error)"
        }
    }

    @Test func `the checksum is that of zip`() {
        // The check value that catalogues of CRCs give.
        let sum = Array("123456789".utf8).withUnsafeBytes { crc32($0) }
        #expect(sum == 0xCBF4_3926)
    }

    @Test func `a file of the stated form is read`() throws {
        var bytes = Array("apusimgs".utf8)
        for word in [1, 2, 4, 2, 3, 0] { bytes += [UInt8(word), 0, 0, 0] }
        let body: [UInt8] = [1, 0, 0, 0, 44, 1] + Self.pixels
        let sum = body.withUnsafeBytes { crc32($0) }
        bytes += (0..<4).map { UInt8(truncatingIfNeeded: sum >> (8 * $0)) } + Array(repeating: 0, count: 28) + body
        #expect(bytes == Self.file)
        let images = try open(bytes)
        #expect((images.height, images.width, images.channels, images.count) == (2, 4, 2, 3))
        #expect(Array(images.labels) == [1, 0, 300] && images.classes == 301)
    }

    @Test func `patches come row by row behind a blank class token`() throws {
        let images = try open(Self.file)
        #expect(images.tokens(patch: 2) == 3 && images.tokens(patch: 1) == 9)
        // The second image begins at 16; its left patch has the first four values of each row.
        #expect(
            images.patches(of: 1, size: 2)
                == Array(repeating: 256, count: 8) + [16, 17, 18, 19, 24, 25, 26, 27, 20, 21, 22, 23, 28, 29, 30, 31])
        let rest = images[1..<3]
        #expect(rest.count == 2 && rest.label(of: 1) == 300)
        #expect(rest.patches(of: 0, size: 2) == images.patches(of: 1, size: 2))
        let parts = images.split(heldOut: 0.4)
        #expect(parts.training.count == 2 && parts.heldOut.count == 1 && parts.heldOut.label(of: 0) == 300)
    }

    @Test func `damaged files are refused, each for its reason`() throws {
        func changed(_ offset: Int, _ value: UInt8) -> String {
            var bytes = Self.file
            bytes[offset] = value
            return refusal(bytes)
        }
        #expect(refusal([]) == "it is no file of images")
        #expect(refusal(Array(Self.file[..<40])) == "it ends within its header")
        #expect(changed(0, 0) == "it is no file of images")
        #expect(changed(8, 2) == "it has version 2, this program reads 1")
        #expect(changed(12, 0).contains("images of 0 x 4 pixels"))
        #expect(changed(24, 0) == "its header counts 0 images")
        #expect(changed(31, 1).contains("its header counts"))
        #expect(changed(24, 4).contains("describes 136 bytes and it has 118"))
        #expect(changed(40, 1) == "its header is damaged")
        #expect(changed(64, 9) == "its bytes are not those that were written")
        #expect(refusal(Self.file + [0]).contains("describes 118 bytes and it has 119"))
        #expect(throws: FileError.self) { try ImageSet(path: scratch.file("none")) }
        let images = try open(Self.file)
        #expect(throws: DataError.self) { try images.check(height: 2, width: 4, channels: 2, classes: 300) }
        #expect(throws: DataError.self) { try images.check(height: 4, width: 2, channels: 2, classes: 400) }
        try images.check(height: 2, width: 4, channels: 2, classes: 301)
    }

    @Test func `damage of any kind is refused or read`() async {
        await #expect(processExitsWith: .success) {
            let file = ImageSet.file(
                height: 2, width: 4, channels: 2, labels: [1, 0, 300], pixels: (0..<48).map { UInt8($0) })
            // Every other file has the length that its header tells and the right checksum, or little would get past these.
            let mutator = Mutator([file], seed: 31, fields: 0..<36) { bytes in
                guard bytes.count >= ImageHeader.byteCount else { return }
                let length = ImageHeader.byteCount + Int(bytes[24]) * 18
                bytes = Array(bytes.prefix(length)) + Array(repeating: 0, count: max(length - bytes.count, 0))
                let sum = bytes[ImageHeader.byteCount...].withUnsafeBytes { crc32($0) }
                for place in 0..<4 { bytes[32 + place] = UInt8(truncatingIfNeeded: sum >> (8 * place)) }
            }
            MutationRun(mutator) { bytes in
                do {
                    let header = try bytes.withUnsafeBytes {
                        try ImageHeader($0, fileBytes: bytes.count, path: "a")
                    }
                    let sum = bytes[ImageHeader.byteCount...].withUnsafeBytes { crc32($0) }
                    guard sum == header.checksum else { return .refused("checksum") }
                    return Array(header.bytes) == Array(bytes[..<ImageHeader.byteCount])
                        ? .accepted : .wrong("\(header)")
                } catch DataError.badImages {
                    return .refused("header")
                } catch {
                    return .wrong("\(error)")
                }
            }.expectSound(refused: ["header", "checksum"])
        }
    }

    @Test func `a stream gives every image once an epoch, each as a sequence with its class`() throws {
        let images = try open(Self.file)
        let stream = try SequenceStream(images, patch: 2, shuffleSeed: 5, part: "training")
        #expect(stream.count == 3 && stream.sequenceLength == 3)
        let batch = try stream.sequences(0..<6)
        #expect(batch.inputs.count == 6 * 3 * 8 && batch.targets.count == 6 * 3)
        for epoch in 0..<2 {
            let labels = (0..<3).map { batch.targets[(epoch * 3 + $0) * 3] }
            #expect(labels.sorted() == [0, 1, 300])
        }
        #expect(batch.targets.count { $0 >= 0 } == 6)
        for place in 0..<6 {
            let index = stream.index(at: place)
            let one = batch[place * 3..<(place + 1) * 3]
            #expect(one.inputs == images.patches(of: index, size: 2))
            #expect(one.targets[0] == images.label(of: index))
            #expect(try stream.sequences(place..<place + 1) == one)
        }
        #expect(throws: DataError.self) {
            try SequenceStream(images[0..<0], patch: 2, shuffleSeed: nil, part: "held-out")
        }
    }
}
