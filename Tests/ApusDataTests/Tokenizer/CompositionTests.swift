import ApusTestSupport
import Testing

@testable import ApusData

/// Normalisation form C.
@Suite struct CompositionTests {
    private func composed(_ text: [UInt8]) -> [UInt8]? {
        text.withUnsafeBufferPointer { buffer in
            buffer.baseAddress.flatMap { Composition.shared.normalized($0, 0..<buffer.count) }
        }
    }

    private func composed(_ text: String) -> String? {
        composed(Array(text.utf8)).map { String(decoding: $0, as: UTF8.self) }
    }

    @Test(arguments: [
        ("e\u{301}", "é"), ("xe\u{301}y", "xéy"), ("A\u{30A}", "Å"), ("\u{212B}", "Å"),
        ("\u{1112}\u{1161}\u{11AB}", "한"),
        // Marks are put in order before they join, whatever lies between them and their letter.
        ("e\u{301}\u{323}", "\u{1EB9}\u{301}"), ("é\u{323}", "\u{1EB9}\u{301}"), ("a\u{316}\u{300}", "à\u{316}"),
        // A mark of the same class stands in the way.
        ("a\u{315}\u{300}\u{301}", "à\u{301}\u{315}"),
        // Not put together again: U+0958 is excluded, U+0344 begins with a mark.
        ("\u{958}", "\u{915}\u{93C}"), ("\u{344}", "\u{308}\u{301}"),
        ("\u{1100}\u{1161}가", "가가"),
    ])
    func `joins`(text: String, expected: String) throws {
        let found = try #require(composed(text))
        #expect(Array(found.unicodeScalars) == Array(expected.unicodeScalars))
    }

    @Test(arguments: ["", "plain", "é à 한국 東京 ﬁ", "ﬀ½", "\u{E000}"])
    func `leaves what is composed`(text: String) { #expect(composed(text) == nil) }

    @Test func `bytes that are no text stay, and join with nothing`() {
        let accent = Array("\u{301}".utf8)
        #expect(composed([0xFF, 0x65] + accent + [0xC3]) == [0xFF] + Array("é".utf8) + [0xC3])
        #expect(composed([0x65, 0xFF] + accent + [0x41]) == [0x65, 0xFF] + accent + [0x41])
    }

    /// The standard library composes too, by a newer Unicode; on characters of every older one it agrees.
    @Test func `agrees with canonical equality`() {
        var random = SeededGenerator(seed: 5)
        let pools: [ClosedRange<UInt32>] = [
            0x41...0x17F, 0x300...0x345, 0x1100...0x11C2, 0xAC00...0xAD00, 0x1E00...0x1FFE,
        ]
        for _ in 0..<20_000 {
            var text = ""
            for _ in 0..<Int.random(in: 1...6, using: &random) {
                let pool = random.pick(pools)
                if let scalar = Unicode.Scalar(UInt32.random(in: pool, using: &random)) {
                    text.unicodeScalars.append(scalar)
                }
            }
            let form = composed(text) ?? text
            // Equal strings of Swift are canonically equivalent; a form composed twice is itself.
            #expect(form == text, "\(Array(text.unicodeScalars))")
            #expect(composed(form) == nil || Array(composed(form)?.utf8 ?? "".utf8) == Array(form.utf8))
        }
    }
}
