import ApusTensor
import Testing

@testable import ApusData

/// Whole tokenizers, by hand.
@Suite struct TokenizerTests {
    @Test func `text becomes ids and text again`() throws {
        var text = TokenizerText()
        text.vocabulary = TokenizerText.bytes(and: ["he", "Ġt", "Ġthe"])
        text.merges = #"["h e", ["Ġ", "t"], "Ġt he"]"#
        let tokenizer = try text.tokenizer()
        #expect(tokenizer.size == 259 && tokenizer.tokenCount == 259)
        #expect(tokenizer.encode("he, the") == [256, 44, 258])
        #expect(tokenizer.text(of: [256, 44, 258]) == "he, the")
        #expect(tokenizer.name(of: 258) == "Ġthe")
        #expect(tokenizer.encode([]) == [])
        #expect(tokenizer.bytes(of: -1) == [] && tokenizer.bytes(of: 99_999) == [])
    }

    @Test func `bytes that are no text come back as they were`() throws {
        let tokenizer = try TokenizerText().tokenizer()
        let bytes = (0...255).map { UInt8($0) } + [0xC3, 0x28, 0xF0, 0x9F]
        #expect(tokenizer.decode(tokenizer.encode(bytes)) == bytes)
        let marked = try TokenizerText.marked().tokenizer()
        #expect(marked.decode(marked.encode([0x61, 0xFF, 0xC3, 0x20, 0x80])) == [0x61, 0xFF, 0xC3, 0x20, 0x80])
    }

    @Test func `a prefix space goes before text that has none`() throws {
        var text = TokenizerText()
        text.preTokenizer = #"{"type": "ByteLevel", "add_prefix_space": true}"#
        let tokenizer = try text.tokenizer()
        #expect(tokenizer.encode("a") == [32, 97] && tokenizer.encode(" a") == [32, 97] && tokenizer.encode("") == [])
    }

    // MARK: Marks and fallback

    @Test func `spaces become marks, and unknown characters bytes`() throws {
        let tokenizer = try TokenizerText.marked().tokenizer()
        #expect(tokenizer.encode("ab a") == [6, 4])
        // ß is C3 9F; the tokens of bytes begin at 8.
        #expect(tokenizer.encode("aß") == [4, 8 + 0xC3, 8 + 0x9F])
        #expect(tokenizer.text(of: [6, 4, 8 + 0xC3, 8 + 0x9F]) == "ab aß")
        // Only the first space of a text is the prefix, and only one.
        #expect(tokenizer.text(of: tokenizer.encode("  a")) == "  a")
        #expect(String(decoding: tokenizer.bytes(of: 4), as: UTF8.self) == " a")
        #expect(String(decoding: tokenizer.bytes(ofFirst: 4), as: UTF8.self) == "a")
    }

    @Test func `characters without token or bytes are one unknown`() throws {
        var text = TokenizerText.marked()
        text.options = #""type": "BPE", "unk_token": "<unk>", "fuse_unk": true"#
        #expect(try text.tokenizer().encode("aßñb") == [4, 0, 3])
        text.options = #""type": "BPE", "unk_token": "<unk>", "fuse_unk": false"#
        #expect(try text.tokenizer().encode("aßñb") == [4, 0, 0, 3])
        // Left out, so that its neighbours merge.
        text.options = #""type": "BPE""#
        #expect(try text.tokenizer().encode("aßñb") == [6])
    }

    @Test(
        arguments: [
            ("always", true, "a b", [4, 1, 3]), ("never", true, "a b", [2, 1, 3]), ("first", true, "a b", [4, 1, 3]),
            ("always", true, " a", [4]), ("always", false, "a  a", [4, 1, 4]), ("always", true, "a  a", [4, 1, 4]),
        ] as [(String, Bool, String, [Int32])])
    func `marks begin words`(scheme: String, cuts: Bool, text: String, expected: [Int32]) throws {
        var file = TokenizerText.marked()
        file.normalizer = "null"
        file.preTokenizer = """
            {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "\(scheme)", "split": \(cuts)}
            """
        #expect(try file.tokenizer().encode(text) == expected)
    }

    /// A token that reaches over a space forbids cutting there first.
    @Test func `text is not cut where a token reaches over`() throws {
        var file = TokenizerText.marked(
            ["<unk>", "▁", "a", "b", "▁b", "a▁b"], merges: #"["▁ b", "a ▁b"]"#)
        #expect(try file.tokenizer().encode("a b") == [1, 5])
        file = .marked(["<unk>", "▁", "a", "b", "▁b", "▁▁"], merges: #"["▁ ▁", "▁ b"]"#)
        #expect(try file.tokenizer().encode("a   b") == [1, 2, 5, 4])
    }

    @Test func `a decoder of marks drops those of the first token`() throws {
        var file = TokenizerText.marked()
        file.decoder = #"{"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true}"#
        #expect(try file.tokenizer().text(of: [4, 6, 3]) == "a abb")
    }

    // MARK: Templates and ends

    @Test func `a template adds ids around a text`() throws {
        var text = TokenizerText()
        text.addedTokens =
            #"[{"id": 256, "content": "<s>", "special": true}, {"id": 257, "content": "</s>", "special": true}]"#
        text.postProcessor = """
            {"type": "Sequence", "processors": [{"type": "ByteLevel"}, {"type": "TemplateProcessing",
             "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                        {"SpecialToken": {"id": "</s>", "type_id": 0}}],
             "pair": [], "special_tokens": {"<s>": {"id": "<s>", "ids": [256], "tokens": ["<s>"]},
             "</s>": {"id": "</s>", "ids": [257], "tokens": ["</s>"]}}}]}
            """
        let tokenizer = try text.tokenizer()
        #expect(tokenizer.prompt("a</s>b") == [256, 97, 257, 98, 257])
        #expect(tokenizer.encode("a</s>b") == [97, 60, 47, 115, 62, 98])
        #expect(tokenizer.endOfDocument == 257)
        #expect(tokenizer.text(of: [256, 97, 257]) == "a")
        let pool = ThreadPool(threadCount: 2)
        let options = EncodingOptions(readsSpecial: true, addsTemplate: true)
        #expect(tokenizer.encodeBatch([[97], []], options: options, pool: pool) == [[256, 97, 257], [256, 257]])
    }

    @Test func `the end of documents may be named`() throws {
        let json = TokenizerText().json
        #expect(try Tokenizer(json: json).endOfDocument == nil)
        #expect(try Tokenizer(json: json, endOfDocument: "Ċ").endOfDocument == 10)
        #expect(throws: TokenizerError.self) { try Tokenizer(json: json, endOfDocument: "<|end|>") }
    }

    // MARK: Streams and batches

    @Test func `a stream of ids never gives half a character`() throws {
        let marked = try TokenizerText.marked().tokenizer()
        let bytes = try TokenizerText().tokenizer()
        for (tokenizer, text) in [(marked, "é aß 東京 👩‍🚀 ab"), (bytes, "é aß 東京 👩‍🚀 ab")] {
            let ids = tokenizer.encode(text)
            var decoder = StreamingDecoder()
            var pieces = ids.map { decoder.append($0, of: tokenizer) }
            pieces.append(decoder.finish())
            #expect(pieces.joined() == text && text == tokenizer.text(of: ids))
            #expect(!pieces.contains { $0.contains("\u{FFFD}") })
            // Going on with a text keeps the space that its beginning leaves out.
            var continued = StreamingDecoder(isContinuing: true)
            #expect(
                ids.map { continued.append($0, of: tokenizer) }.joined() == (tokenizer === marked ? " " : "") + text)
        }
    }

    /// Large enough to be cut, with and without places to cut at.
    @Test(arguments: ["the cat's hat, 1234;\nand so on", "no place\n to cut ", "x \ny"])
    func `a document in parallel has the ids of one at a time`(line: String) throws {
        var text = TokenizerText()
        text.vocabulary = TokenizerText.bytes(and: ["he", "Ġt", "Ġthe", "ĊĊ", "Ċa"])
        text.merges = #"["h e", "Ġ t", "Ġt he", "Ċ Ċ", "Ċ a"]"#
        for pattern in WordPattern.allCases {
            text.preTokenizer = """
                {"type": "Sequence", "pretokenizers": [{"type": "Split", "pattern": {"Regex": "\(escaped(pattern.expression))"},
                 "behavior": "Isolated", "invert": false}, {"type": "ByteLevel", "add_prefix_space": false, "use_regex": false}]}
                """
            let tokenizer = try text.tokenizer()
            let document = Array(String(repeating: line + "\n\n" + line + "\n", count: 20_000).utf8)
            let short = Array("a short one".utf8)
            let pool = ThreadPool(threadCount: 2)
            let batch = tokenizer.encodeBatch([short, document, [], short], pool: pool)
            #expect(batch == [short, document, [], short].map { tokenizer.encode($0) })
            if line.hasPrefix("the") { #expect(tokenizer.cuts(document).count > 4) }
        }
    }

    private func escaped(_ text: String) -> String {
        text.split(separator: "\\", omittingEmptySubsequences: false).joined(separator: "\\\\")
    }
}
