import ApusTestSupport
import Testing

@testable import ApusData

/// Merging against its definition.
@Suite struct BPEModelTests {
    /// A model over the letters a to h with random merges, of which some give the same text.
    private func model(_ random: inout SeededGenerator, merges: Int) -> BPEModel {
        var tokens = TokenTable()
        for letter in "abcdefgh".utf8 { _ = tokens.insert([letter], id: tokens.idEnd) }
        var rules: [MergeRule] = []
        while rules.count < merges {
            let left = Int.random(in: 0..<tokens.idEnd, using: &random)
            let right = Int.random(in: 0..<tokens.idEnd, using: &random)
            let text = Array((tokens[left] ?? []) + (tokens[right] ?? []))
            if text.count > 12 { continue }
            let result = tokens.id(of: text) ?? tokens.idEnd
            _ = tokens.insert(text, id: result)
            rules.append(MergeRule(left: UInt32(left), right: UInt32(right), result: UInt32(result)))
        }
        return BPEModel(tokens: tokens, rules: rules, isByteLevel: false, unknown: .init(), ignoresMerges: false)
    }

    /// The definition: of all neighbours that merge, the one of lowest rank, the leftmost, until there is none.
    private func merged(_ word: [UInt8], _ model: BPEModel) -> [Int32] {
        var ranks: [UInt64: (rank: Int, result: UInt32)] = [:]
        for (rank, rule) in model.rules.enumerated() {
            ranks[UInt64(rule.left) << 32 | UInt64(rule.right)] = (rank, rule.result)
        }
        var symbols = word.map { UInt32(model.byteIDs.base[Int($0)]) }
        while true {
            var best: (rank: Int, place: Int, result: UInt32)?
            for place in 0..<max(0, symbols.count - 1) {
                guard let merge = ranks[UInt64(symbols[place]) << 32 | UInt64(symbols[place + 1])] else { continue }
                if best.map({ merge.rank < $0.rank }) ?? true { best = (merge.rank, place, merge.result) }
            }
            guard let best else { return symbols.map(Int32.init) }
            symbols.replaceSubrange(best.place...best.place + 1, with: [best.result])
        }
    }

    private func encoded(_ word: [UInt8], _ model: BPEModel, _ work: EncodingWorkspace) -> [Int32] {
        work.removeIDs()
        word.withUnsafeBufferPointer { word in
            guard let start = word.baseAddress else { return }
            model.encode(start, word.count, readable: word.count, model.pairs.view, work)
        }
        return work.takeIDs()
    }

    @Test(arguments: [1 as UInt64, 2, 3])
    func `merges the lowest rank first, the leftmost of equal ones, in words of any length`(seed: UInt64) {
        var random = SeededGenerator(seed: seed)
        let model = model(&random, merges: 60)
        let work = EncodingWorkspace()
        // Around what the cache holds, what is scanned, and what goes through the heap.
        for length in [1, 2, 3, 8, 31, 32, 33, 47, 48, 49, 50, 64, 200] {
            for letters in [2, 8] {
                for _ in 0..<40 {
                    let word = (0..<length).map { _ in UInt8(97 + Int.random(in: 0..<letters, using: &random)) }
                    #expect(encoded(word, model, work) == merged(word, model))
                    #expect(encoded(word, model, work) == merged(word, model), "from the cache")
                }
            }
        }
    }

    @Test func `takes little longer for a word of a million letters`() {
        var random = SeededGenerator(seed: 9)
        let model = model(&random, merges: 60)
        let work = EncodingWorkspace()
        let word = (0..<1_000_000).map { _ in UInt8(97 + Int.random(in: 0..<3, using: &random)) }
        let clock = ContinuousClock()
        var ids: [Int32] = []
        let time = clock.measure { ids = encoded(word, model, work) }
        #expect(ids.flatMap { Array(model.tokens[Int($0)] ?? []) } == word)
        // A quadratic scan would take minutes.
        #expect(time < .seconds(30))
    }

    @Test func `of two merges of one pair the later counts`() throws {
        var text = TokenizerText()
        text.vocabulary = TokenizerText.bytes(and: ["ab", "bc"])
        text.merges = #"["a b", "b c", "a b"]"#
        #expect(try text.tokenizer().encode("abc") == [97, 257])
        text.merges = #"["a b", "b c"]"#
        #expect(try text.tokenizer().encode("abc") == [256, 99])
    }

    @Test func `a word that is a token may stand before all merges`() throws {
        var text = TokenizerText()
        text.vocabulary = TokenizerText.bytes(and: ["Ġab", "abc"])
        #expect(try text.tokenizer().encode("abc ab") == [97, 98, 99, 32, 97, 98])
        text.options = #""type": "BPE", "ignore_merges": true"#
        #expect(try text.tokenizer().encode("abc ab") == [257, 256])
    }

    @Test func `the byte alphabet is the published one`() {
        #expect(
            String(
                decoding: ByteAlphabet.text(of: [0x20, 0x0A, 0x21, 0x7E, 0x7F, 0xA1, 0xAD, 0xFF, 0x00]), as: UTF8.self)
                == "ĠĊ!~ġ¡ŃÿĀ")
        let all = (0...255).map { UInt8($0) }
        #expect(ByteAlphabet.text(of: all).withUnsafeBufferPointer { ByteAlphabet.bytes(of: $0) } == all)
        #expect(Array(" ".utf8).withUnsafeBufferPointer { ByteAlphabet.bytes(of: $0) } == nil)
    }
}
