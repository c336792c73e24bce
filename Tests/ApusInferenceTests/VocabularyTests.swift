import ApusData
import ApusTestSupport
import Testing

@Suite struct `A vocabulary` {
    @Test func `of bytes gives every byte back`() {
        let vocabulary = ByteVocabulary()
        let bytes = (0...255).map(UInt8.init)
        #expect(vocabulary.size == 257 && vocabulary.endOfDocument == 256)
        #expect(vocabulary.encode(bytes) == (0...255).map(Int32.init))
        #expect(vocabulary.decode(vocabulary.encode(bytes)) == bytes)
        #expect(vocabulary.text(of: vocabulary.encode("naïve 東京 🐦")) == "naïve 東京 🐦")
        for id in [-1, 256, 257, .max] as [Int32] { #expect(vocabulary.bytes(of: id).isEmpty) }
    }
}

@Suite struct `A streaming decoder` {
    /// The scalars of the pieces that a decoder yields for `bytes` cut at `cuts`.
    private func decode(_ bytes: [UInt8], cuts: [Int]) -> [String] {
        var decoder = StreamingDecoder()
        var pieces: [String] = []
        var first = 0
        for cut in cuts + [bytes.count] {
            pieces.append(decoder.append(bytes[first..<cut]))
            first = cut
        }
        return pieces + [decoder.finish()]
    }

    private func scalars(_ text: String) -> [Unicode.Scalar] { Array(text.unicodeScalars) }

    static let text = "aé߿ࠀ東\u{d7ff}\u{e000}\u{fffd}𐀀🐦\u{10ffff}z"

    @Test func `yields whole characters whatever the cut`() {
        let bytes = Array(Self.text.utf8)
        for first in 0...bytes.count {
            for second in first...bytes.count {
                let pieces = decode(bytes, cuts: [first, second])
                #expect(scalars(pieces.joined()) == scalars(Self.text))
                #expect(pieces.last?.isEmpty == true)
            }
        }
        let single = decode(bytes, cuts: Array(0..<bytes.count))
        #expect(single.filter { !$0.isEmpty }.allSatisfy { $0.unicodeScalars.count == 1 })
        #expect(scalars(single.joined()) == scalars(Self.text))
    }

    @Test func `replaces bytes that are no text as decoding all at once does`() {
        var generator = SeededGenerator(seed: 1)
        let leads: [UInt8] = [
            0x41, 0x80, 0xbf, 0xc0, 0xc2, 0xe0, 0xe1, 0xed, 0xef, 0xf0, 0xf1, 0xf4, 0xf5, 0xff, 0xa0, 0x9f, 0x90,
        ]
        for _ in 0..<3000 {
            let bytes = (0..<Int.random(in: 1...9, using: &generator)).map { _ in
                leads.randomElement(using: &generator) ?? 0
            }
            let expected = scalars(String(decoding: bytes, as: UTF8.self))
            for cut in 0...bytes.count { #expect(scalars(decode(bytes, cuts: [cut]).joined()) == expected) }
            #expect(scalars(decode(bytes, cuts: Array(0..<bytes.count)).joined()) == expected)
        }
    }

    @Test func `waits only while a character may still become whole`() {
        var decoder = StreamingDecoder()
        #expect(decoder.append([0xf0, 0x9f]).isEmpty)
        #expect(scalars(decoder.append([0x41])) == scalars("\u{fffd}A"))
        // 0xc0 begins nothing, and 0xed 0xa0 would be a surrogate.
        #expect(scalars(decoder.append([0xc0])) == scalars("\u{fffd}"))
        #expect(decoder.append([0xed]).isEmpty)
        #expect(scalars(decoder.append([0xa0])) == scalars("\u{fffd}\u{fffd}"))
        #expect(decoder.append([0xe6, 0x9d]).isEmpty)
        #expect(scalars(decoder.finish()) == scalars("\u{fffd}"))
        #expect(decoder.append([0x42]) == "B" && decoder.finish().isEmpty)
    }
}
