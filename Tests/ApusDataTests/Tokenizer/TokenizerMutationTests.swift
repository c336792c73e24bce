import ApusTensor
import ApusTestSupport
import Testing

@testable import ApusData

/// Seeded damage to valid files: a typed error or a tokenizer that works, never a crash, a hang or much memory.
@Suite struct TokenizerMutationTests {
    @Test func `of files`() async {
        await #expect(processExitsWith: .success) {
            let sample = Array("ab <s> é\u{301} 12\n\n <mask> ▁".utf8) + [0xFF, 0xC3]
            let words =
                Mutator.json + [
                    "\"type\":", "\"Sequence\"", "\"ByteLevel\"", "\"merges\":[", "\"vocab\":{", "\"<s>\"", "\"id\":",
                    "Ġ", "▁",
                    "<0xFF>", "\"a b\"",
                ]
            let mutator = Mutator(try TokenizerMutationTests.originals(), seed: 2026, words: words)
            MutationRun(mutator) { damaged in
                do {
                    let tokenizer = try Tokenizer(json: damaged)
                    let ids = tokenizer.encode(sample)
                    guard ids.allSatisfy({ $0 >= 0 && Int($0) < tokenizer.size }) else { return .wrong("\(ids)") }
                    _ = tokenizer.decode(ids)
                    guard damaged.count % 16 == 0 else { return .accepted }
                    let again = try Tokenizer(json: tokenizer.json)
                    return again.encode(sample) == ids ? .accepted : .wrong("reads back as another")
                } catch let error as TokenizerError {
                    return .refused(kind(error))
                } catch {
                    return .wrong("\(error)")
                }
            }.expectSound(
                refused: ["malformed", "unsupported", "inconsistent"], each: 0.005, memory: MutationRun.mostMemory)
        }
    }

    /// Small files of every style, so that damage often hits what matters, and one as training writes it.
    static func originals() throws -> [[UInt8]] {
        var bytes = TokenizerText()
        bytes.vocabulary = #"{"a": 0, "b": 1, "Ġ": 2, "ab": 3, "Ġa": 4, "Ċ": 5, "1": 6, "<s>": 7}"#
        bytes.merges = #"["a b", ["Ġ", "a"]]"#
        bytes.normalizer = #"{"type": "NFC"}"#
        bytes.addedTokens =
            #"[{"id": 7, "content": "<s>", "special": true, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false}, {"id": 8, "content": "<mask>", "lstrip": true, "normalized": true}]"#
        bytes.postProcessor =
            #"{"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}], "pair": [], "special_tokens": {"<s>": {"id": "<s>", "ids": [7], "tokens": ["<s>"]}}}"#
        var words = bytes
        words.preTokenizer =
            #"{"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": true}, {"type": "ByteLevel", "add_prefix_space": false}]}"#
        words.options = #""type": "BPE", "unk_token": "a", "fuse_unk": false, "dropout": null, "ignore_merges": true"#
        var marked = TokenizerText.marked()
        marked.vocabulary = #"{"<unk>": 0, "▁": 1, "a": 2, "b": 3, "▁a": 4, "<0xC3>": 5, "<0xA9>": 6}"#
        marked.merges = #"["▁ a"]"#
        var space = marked
        space.normalizer = "null"
        space.preTokenizer = #"{"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": true}"#
        return try [bytes, words, marked, space].map(\.json) + [trained()]
    }

    private static func trained() throws -> [UInt8] {
        let texts = ["a swift sleeps on the wing, the swift", "12 swifts: größer <s>"].map { Array($0.utf8) }
        return try BPETrainer(vocabularySize: 264).train(texts: texts, pool: ThreadPool(threadCount: 1)).json
    }
}

private func kind(_ error: TokenizerError) -> String {
    switch error {
    case .malformed: "malformed"
    case .unsupported: "unsupported"
    case .inconsistent: "inconsistent"
    default: "\(error)"
    }
}
