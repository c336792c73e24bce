import ApusTestSupport

@testable import ApusData

extension SeededGenerator {
    mutating func pick<Element>(_ elements: [Element]) -> Element {
        elements[Int.random(in: 0..<elements.count, using: &self)]
    }
}

/// Small `tokenizer.json` texts, put together from JSON of their parts.
struct TokenizerText {
    var addedTokens = "[]"
    var normalizer = "null"
    var preTokenizer = #"{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}"#
    var postProcessor = "null"
    var decoder = #"{"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true}"#
    var options = #""type": "BPE""#
    var vocabulary = TokenizerText.bytes
    var merges = "[]"

    /// The 256 bytes, in their order.
    static let bytes =
        "{"
        + ByteAlphabet.scalars.enumerated().map { byte, scalar in
            #""\#(scalar == 0x22 || scalar == 0x5C ? "\\" : "")\#(String(Unicode.Scalar(scalar) ?? "?"))": \#(byte)"#
        }.joined(separator: ", ") + "}"

    /// The 256 bytes, then these.
    static func bytes(and more: [String]) -> String {
        bytes.dropLast() + more.enumerated().map { #", "\#($0.element)": \#(256 + $0.offset)"# }.joined() + "}"
    }

    /// Characters with ids from 0, and bytes' tokens behind them.
    static func characters(_ tokens: [String], withBytes: Bool) -> String {
        let all = tokens + (withBytes ? (0..<256).map { BPEModel.fallbackText(UInt8($0)) } : [])
        return "{" + all.enumerated().map { #""\#($0.element)": \#($0.offset)"# }.joined(separator: ", ") + "}"
    }

    var json: [UInt8] {
        Array(
            """
            {"version": "1.0", "truncation": null, "padding": null, "added_tokens": \(addedTokens),
             "normalizer": \(normalizer), "pre_tokenizer": \(preTokenizer), "post_processor": \(postProcessor),
             "decoder": \(decoder), "model": {\(options), "vocab": \(vocabulary), "merges": \(merges)}}
            """.utf8)
    }

    func tokenizer() throws -> Tokenizer { try Tokenizer(json: json) }

    /// The style of files made from SentencePiece models.
    static func marked(
        _ tokens: [String] = ["<unk>", "▁", "a", "b", "▁a", "ab", "▁ab", "é"],
        merges: String = #"["▁ a", "a b", "▁a b", "▁ ab"]"#
    ) -> TokenizerText {
        var text = TokenizerText()
        text.normalizer = """
            {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"},
             {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]}
            """
        text.preTokenizer = "null"
        text.decoder = """
            {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
             {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}
            """
        text.options = #""type": "BPE", "unk_token": "<unk>", "fuse_unk": true, "byte_fallback": true"#
        text.vocabulary = characters(tokens, withBytes: true)
        text.merges = merges
        return text
    }
}

extension Tokenizer {
    /// The ids of a text in which special tokens count, with what the template adds.
    func prompt(_ text: String) -> [Int32] {
        encode(Array(text.utf8), options: EncodingOptions(readsSpecial: true, addsTemplate: true))
    }
}
