import ApusTestSupport
import Glibc
import Testing

@testable import ApusData

/// Files of the size that large published vocabularies have.
@Suite struct LargeTokenizerTests {
    /// The 256 bytes, all pairs and triples of the letters and the space, and longer words up to `count`; with up to three
    /// merges for each.
    private static func text(tokens count: Int, merges most: Int) -> (text: TokenizerText, words: [String]) {
        let letters = ["Ġ"] + "abcdefghijklmnopqrstuvwxyz".map(String.init)
        let pairs = letters.flatMap { first in letters.map { first + $0 } }
        var words = pairs + pairs.flatMap { pair in letters.map { pair + $0 } }
        var known = Set(words + letters)
        var random = SeededGenerator(seed: 5)
        while words.count < count - 256 {
            let word = (0..<Int.random(in: 4...6, using: &random)).map { _ in random.pick(letters) }.joined()
            if known.insert(word).inserted { words.append(word) }
        }
        var merges: [String] = []
        for way in 0..<3 {
            for word in words where merges.count < most {
                let cuts = (1..<word.count).filter {
                    known.contains(String(word.prefix($0))) && known.contains(String(word.dropFirst($0)))
                }
                if way < cuts.count { merges.append("\"\(word.prefix(cuts[way])) \(word.dropFirst(cuts[way]))\"") }
            }
        }
        var text = TokenizerText()
        text.vocabulary = TokenizerText.bytes(and: words)
        text.merges = "[\(merges.joined(separator: ",\n"))]"
        return (text, words)
    }

    /// Seconds of this thread, which other work on the machine does not change.
    private func processorSeconds(_ body: () throws -> Void) rethrows -> Double {
        func now() -> Double {
            var time = timespec()
            clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
            return Double(time.tv_sec) + Double(time.tv_nsec) * 1e-9
        }
        let begin = now()
        try body()
        return now() - begin
    }

    @Test func `150,000 tokens and 280,000 merges are read in less than a second`() throws {
        let (text, words) = Self.text(tokens: 150_000, merges: 280_000)
        let json = text.json
        var tokenizer: Tokenizer?
        let seconds = try (0..<3).map { _ in try processorSeconds { tokenizer = try Tokenizer(json: json) } }
        #expect(try #require(seconds.min()) < 1, "\(seconds)")
        let read = try #require(tokenizer)
        #expect(read.tokenCount == 150_000 && read.parts.rules.count == 280_000)
        for (place, word) in words.enumerated() where place % 997 == 0 {
            #expect(read.id(of: word) == Int32(256 + place))
            let text = word.replacing("Ġ", with: " ")
            #expect(read.decode([Int32(256 + place)]) == Array(text.utf8) && read.text(of: read.encode(text)) == text)
        }
    }
}
