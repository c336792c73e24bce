import Testing

@testable import ApusData

/// Words of the known patterns, by hand; side by side with the library in `TokenizerPeerTests`.
@Suite struct WordPatternTests {
    private func words(_ pattern: WordPattern, _ text: [UInt8]) -> [[UInt8]] {
        var words: [[UInt8]] = []
        text.withUnsafeBufferPointer { buffer in
            guard let start = buffer.baseAddress else { return }
            var place = 0
            while place < buffer.count {
                let end = Splitter.words(pattern).pieceEnd(start, place, buffer.count, ScalarClasses.shared.view)
                words.append(Array(buffer[place..<end]))
                place = end
            }
        }
        return words
    }

    private func words(_ pattern: WordPattern, _ text: String) -> [String] {
        words(pattern, Array(text.utf8)).map { String(decoding: $0, as: UTF8.self) }
    }

    @Test(arguments: [
        ("Hello world", ["Hello", " world"]),
        ("it's we'Ll 'tis", ["it", "'s", " we", "'", "Ll", " '", "tis"]),
        ("a  b\n\nc \t", ["a", " ", " b", "\n", "\n", "c", " \t"]),
        ("x=12345, y", ["x", "=", "12345", ",", " y"]),
        ("naïve 東京 ١٢", ["naïve", " 東京", " ١٢"]),
        ("a\u{A0}b\u{3000} c", ["a", "\u{A0}", "b", "\u{3000}", " c"]),
        ("e\u{301}!?", ["e", "\u{301}!?"]),
    ])
    func `of GPT-2`(text: String, expected: [String]) { #expect(words(.gpt2, text) == expected) }

    @Test(arguments: [
        ("Hello (world)", ["Hello", " (", "world", ")"]),
        ("it'S we'LL 'tis '\u{17F}", ["it", "'S", " we", "'LL", " '", "tis", " '", "\u{17F}"]),
        ("it'\u{17F}", ["it", "'\u{17F}"]),
        ("a  b\n\n c \r\n\t", ["a", " ", " b", "\n\n", " c", " \r\n", "\t"]),
        ("x=12345;\n\ny", ["x", "=", "123", "45", ";\n\n", "y"]),
        ("\n a", ["\n", " a"]),
        ("\tdef f():\n    x", ["\tdef", " f", "():\n", "   ", " x"]),
        (" 1", [" ", "1"]),
    ])
    func `of Llama 3`(text: String, expected: [String]) { #expect(words(.llama3, text) == expected) }

    @Test func `of Qwen have one digit`() {
        #expect(words(.qwen2, "in 2026!") == ["in", " ", "2", "0", "2", "6", "!"])
    }

    @Test(arguments: WordPattern.allCases)
    func `keep bytes that are no text`(pattern: WordPattern) {
        let text: [UInt8] = [0x61, 0xFF, 0xFE, 0x20, 0xC3, 0x28, 0xE2, 0x82, 0x0A, 0xF0, 0x9F]
        #expect(words(pattern, text).flatMap { $0 } == text)
        // They are signs: neither letters, numbers nor spaces.
        #expect(words(pattern, text).first == [0x61])
    }

    @Test func `are known by their expressions alone`() {
        for pattern in WordPattern.allCases { #expect(WordPattern(expression: pattern.expression) == pattern) }
        #expect(WordPattern(expression: #"\p{L}+"#) == nil)
    }

    @Test(arguments: [(true, ["a", "1", "2", "b c", "½"]), (false, ["a", "12", "b c", "½"])])
    func `digits stand apart`(individually: Bool, expected: [String]) {
        var found: [String] = []
        let text = Array("a12b c½".utf8)
        text.withUnsafeBufferPointer { buffer in
            guard let start = buffer.baseAddress else { return }
            var place = 0
            let splitter = Splitter.digits(individually: individually)
            while place < buffer.count {
                let end = splitter.pieceEnd(start, place, buffer.count, ScalarClasses.shared.view)
                found.append(String(decoding: buffer[place..<end], as: UTF8.self))
                place = end
            }
        }
        #expect(found == expected)
    }
}
