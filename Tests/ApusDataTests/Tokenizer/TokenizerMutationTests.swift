import Glibc
import Testing

@testable import ApusData

/// Seeded damage to valid files: a typed error or a tokenizer that works, never a crash, a hang or much memory.
@Suite struct TokenizerMutationTests {
    /// `APUS_SOAK` asks for the long form.
    static let rounds = getenv("APUS_SOAK") == nil ? 20_000 : 1_000_000
    /// Bytes that the whole test process may take more; the files have a few kilobytes.
    static let memoryLimit = 100 << 20

    @Test func `of files`() async {
        await #expect(processExitsWith: .success) {
            let originals = TokenizerMutationTests.originals()
            var random = TextRandom(state: 2026)
            let sample = Array("ab <s> é\u{301} 12\n\n <mask> ▁".utf8) + [0xFF, 0xC3]
            // Tables and the first workspace exist before memory is counted.
            for original in originals { _ = try Tokenizer(json: original).encode(sample) }
            let before = peakMemory()
            var accepted = 0
            var refusals: [String: Int] = [:]
            for round in 0..<TokenizerMutationTests.rounds {
                let damaged = TokenizerMutationTests.mutated(originals[round % originals.count], &random)
                do {
                    let tokenizer = try Tokenizer(json: damaged)
                    accepted += 1
                    let ids = tokenizer.encode(sample)
                    #expect(ids.allSatisfy { $0 >= 0 && Int($0) < tokenizer.size })
                    _ = tokenizer.decode(ids)
                    if round % 16 == 0 {
                        let again = try Tokenizer(json: tokenizer.json)
                        #expect(again.encode(sample) == ids)
                    }
                } catch let error as TokenizerError {
                    refusals[kind(error), default: 0] += 1
                }
            }
            #expect(peakMemory() - before < TokenizerMutationTests.memoryLimit)
            // A round that never gets past the first check would test nothing.
            #expect(accepted > TokenizerMutationTests.rounds / 50, "\(accepted)")
            for sort in ["malformed", "unsupported", "inconsistent"] {
                #expect(refusals[sort, default: 0] > TokenizerMutationTests.rounds / 200, "\(refusals)")
            }
        }
    }

    /// Small files of every style, so that damage often hits what matters.
    static func originals() -> [[UInt8]] {
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
        return [bytes, words, marked, space].map(\.json)
    }

    /// One to three damages: a flipped bit, a byte of JSON or of chance, a cut, a copied or removed stretch, a number.
    static func mutated(_ original: [UInt8], _ random: inout TextRandom) -> [UInt8] {
        var bytes = original
        let alphabet = Array("{}[]\",:0123456789-.eE\\u truefalsn<>".utf8)
        for _ in 0..<Int.random(in: 1...3, using: &random) {
            guard !bytes.isEmpty else { return bytes }
            let at = Int.random(in: 0..<bytes.count, using: &random)
            let end = min(bytes.count, at + Int.random(in: 1...32, using: &random))
            switch Int.random(in: 0..<8, using: &random) {
            case 0: bytes[at] ^= 1 << UInt8.random(in: 0...7, using: &random)
            case 1: bytes[at] = random.pick(alphabet)
            case 2: bytes[at] = UInt8.random(in: 0...255, using: &random)
            case 3: bytes.removeLast(Int.random(in: 0..<min(bytes.count, 60), using: &random))
            case 4: bytes.insert(contentsOf: bytes[at..<end], at: Int.random(in: 0...bytes.count, using: &random))
            case 5: bytes.removeSubrange(at..<end)
            case 6: bytes.insert(random.pick(alphabet), at: at)
            default:
                guard let digit = bytes[at...].firstIndex(where: { (0x30...0x39).contains($0) }) else { continue }
                let number = random.pick([
                    "4194303", "4194304", "2147483648", "99999999999999999999", "-1", "1e9", "0.5", "7",
                ])
                bytes.replaceSubrange(digit...digit, with: number.utf8)
            }
        }
        return bytes
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

/// Highest resident size of this process so far, in bytes.
private func peakMemory() -> Int {
    var usage = rusage()
    getrusage(__rusage_who_t(RUSAGE_SELF.rawValue), &usage)
    return usage.ru_maxrss * 1024
}
