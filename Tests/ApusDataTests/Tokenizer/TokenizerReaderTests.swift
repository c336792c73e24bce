import ApusTensor
import ApusTestSupport
import Testing

@testable import ApusData

/// The reader and writer of `tokenizer.json`.
@Suite struct TokenizerReaderTests {
    private func error(_ text: TokenizerText) -> TokenizerError? {
        #expect(throws: TokenizerError.self) { try text.tokenizer() }
    }

    private func error(_ json: String) -> TokenizerError? {
        #expect(throws: TokenizerError.self) { try Tokenizer(json: Array(json.utf8)) }
    }

    // MARK: What Apus does not have is refused by its name

    @Test(arguments: [
        (#"{"type": "BertNormalizer"}"#, "normalizer", "'BertNormalizer'"),
        (
            #"{"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Lowercase"}]}"#, "normalizer",
            "'Lowercase'"
        ),
        (
            #"{"type": "Replace", "pattern": {"Regex": "a+"}, "content": "b"}"#, "normalizer Replace",
            "of the expression 'a+'"
        ),
        (
            #"{"type": "Replace", "pattern": {"String": ""}, "content": "b"}"#, "normalizer Replace",
            "without a text to look for"
        ),
        (#"{"type": "Prepend"}"#, "normalizer.prepend", "missing"),
    ])
    func `a normalizer`(json: String, part: String, found: String) {
        var text = TokenizerText()
        text.normalizer = json
        guard case .unsupported(_, part, found, let works) = error(text) else {
            Issue.record("another error")
            return
        }
        #expect(!works.isEmpty)
    }

    @Test(arguments: [
        (#"{"type": "Whitespace"}"#, "pre_tokenizer", "'Whitespace'"),
        (
            #"{"type": "Split", "pattern": {"Regex": "\\d"}, "behavior": "Isolated", "invert": false}"#,
            "pre_tokenizer Split", #"by '\d'"#
        ),
        (
            #"{"type": "Sequence", "pretokenizers": [{"type": "ByteLevel"}, {"type": "Digits"}]}"#, "pre_tokenizer",
            "'Digits' behind what turns text into symbols"
        ),
        (
            #"{"type": "Sequence", "pretokenizers": [{"type": "Digits"}, {"type": "ByteLevel", "add_prefix_space": true}]}"#,
            "pre_tokenizer ByteLevel", "add_prefix_space behind another pre-tokenizer"
        ),
        (#"{"type": "Metaspace", "replacement": "ab"}"#, "pre_tokenizer Metaspace", "with the mark 'ab'"),
        (
            #"{"type": "Metaspace", "replacement": "▁", "prepend_scheme": "last"}"#,
            "pre_tokenizer Metaspace.prepend_scheme", #""last""#
        ),
        (#"{"type": "ByteLevel", "use_regex": 1}"#, "pre_tokenizer.use_regex", "1"),
    ])
    func `a pre-tokenizer`(json: String, part: String, found: String) {
        var text = TokenizerText()
        text.preTokenizer = json
        guard case .unsupported(_, part, found, _) = error(text) else {
            Issue.record("another error")
            return
        }
    }

    @Test(arguments: [
        ("null", "null"), (#"{"type": "WordPiece"}"#, "'WordPiece' at this place"),
        (
            #"{"type": "Sequence", "decoders": [{"type": "Fuse"}, {"type": "ByteFallback"}]}"#,
            "'ByteFallback' at this place"
        ),
        (
            #"{"type": "Sequence", "decoders": [{"type": "Strip", "content": " ", "start": 1, "stop": 0}]}"#,
            "'Strip' at this place"
        ),
    ])
    func `a decoder`(json: String, found: String) {
        var text = TokenizerText()
        text.decoder = json
        guard case .unsupported(_, "decoder", found, _) = error(text) else {
            Issue.record("another error")
            return
        }
    }

    @Test func `a post-processor or a model`() {
        var text = TokenizerText()
        text.postProcessor = #"{"type": "RobertaProcessing"}"#
        guard case .unsupported(_, "post_processor", "'RobertaProcessing'", _) = error(text) else {
            Issue.record("another")
            return
        }
        text = TokenizerText()
        text.options = #""type": "Unigram""#
        guard case .unsupported(_, "model", "'Unigram'", "BPE") = error(text) else {
            Issue.record("another")
            return
        }
        text.options = #""type": "BPE", "dropout": 0.1"#
        guard case .unsupported(_, "model.dropout", "0.1", _) = error(text) else {
            Issue.record("another")
            return
        }
        text.options = #""type": "BPE", "end_of_word_suffix": "</w>""#
        guard case .unsupported(_, "model.end_of_word_suffix", "'</w>'", _) = error(text) else {
            Issue.record("another")
            return
        }
    }

    @Test func `an error says what, where and what would work`() {
        var text = TokenizerText()
        text.preTokenizer = #"{"type": "Whitespace"}"#
        #expect(error(text)?.description.contains("pre_tokenizer is 'Whitespace'") == true)
        #expect(error(text)?.description.contains("What works: ByteLevel") == true)
    }

    // MARK: What contradicts itself

    @Test(arguments: [
        (#"["a x1"]"#, "[]", "needs the token 'x1'"), (#"["a b"]"#, "[]", "needs the token 'ab'"),
        ("[]", #"[{"id": 5, "content": "<s>"}]"#, "the id 5 belongs to"),
        ("[]", #"[{"id": 300, "content": "a"}]"#, "has the id 300, and 97 in the vocabulary"),
        (
            "[]", #"[{"id": 300, "content": "<a>"}, {"id": 300, "content": "<b>"}]"#,
            "the id 300 belongs to '<a>' and to '<b>'"
        ),
        ("[]", #"[{"id": 300, "content": "<a>"}, {"id": 301, "content": "<a>"}]"#, "is there twice"),
    ])
    func `parts that contradict each other`(merges: String, added: String, reason: String) {
        var text = TokenizerText()
        text.merges = merges
        text.addedTokens = added
        guard case .inconsistent(_, let found) = error(text) else {
            Issue.record("another error")
            return
        }
        #expect(found.contains(reason), "\(found)")
    }

    @Test(arguments: [
        ("[]", "expected an object"), ("{}", "there is no model"), (#"{"version": "2.0"}"#, "version '2.0'"),
        (#"{"model": {"type": "BPE", "vocab": {}}}"#, "a model without 'merges'"),
        (#"{"model": {"type": "BPE", "vocab": {"a": 0, "a": 1}, "merges": []}}"#, "twice"),
        (#"{"model": {"type": "BPE", "vocab": {"a": 0, "b": 0}, "merges": []}}"#, "twice"),
        (#"{"model": {"type": "BPE", "vocab": {"a": 99999999}, "merges": []}}"#, "ids are below"),
        (#"{"model": {"type": "BPE", "vocab": {"a": -1}, "merges": []}}"#, "negative"),
        (#"{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["a"]}}"#, "not two texts"),
        (#"{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [["a"]]}}"#, "less than two"),
        (#"{"model": {"type": "BPE", "unk_token": "?", "vocab": {"a": 0}, "merges": []}}"#, "unk_token '?' is not"),
        (#"{"added_tokens": [{"id": 1}]}"#, "without its content"),
        (#"{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}} x"#, "after the end"),
        (#"{"padding": "# + String(repeating: "[", count: 100), "nested deeper"),
    ])
    func `text that is no tokenizer`(json: String, reason: String) {
        let error = error(json)
        #expect(error?.description.contains(reason) == true, "\(String(describing: error))")
    }

    @Test func `a file that cannot be read is named`() {
        let error = #expect(throws: TokenizerError.self) { try Tokenizer(file: "/nowhere/tokenizer.json") }
        #expect(error?.description.contains("tokenizer '/nowhere/tokenizer.json': no such file") == true)
        #expect(throws: TokenizerError.self) { try Tokenizer(file: "/tmp") }
        #expect(throws: TokenizerError.self) { try TokenizerText().tokenizer().write(to: "/nowhere/tokenizer.json") }
    }

    // MARK: What is read is what is written

    @Test func `a tokenizer written and read is the same`() throws {
        var text = TokenizerText.marked()
        text.addedTokens = #"""
            [{"id": 290, "content": "<\"\\\n\u0007é😀>", "special": false, "single_word": true, "lstrip": true, "rstrip": false,
              "normalized": true}, {"id": 0, "content": "<unk>", "special": true}]
            """#
        text.postProcessor =
            #"{"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 0}}], "pair": [1, 2.5, true, {}], "special_tokens": {}}"#
        let first = try text.tokenizer()
        let scratch = try ScratchFolder()
        let path = scratch.file("tokenizer.json")
        try first.write(to: path)
        let second = try Tokenizer(file: path)
        #expect(second.json == first.json)
        #expect(second.parts.normalizer == first.parts.normalizer && second.parts.rules == first.parts.rules)
        #expect(second.parts.postProcessor == first.parts.postProcessor)
        #expect(second.addedTokens.sorted { $0.id < $1.id } == first.addedTokens.sorted { $0.id < $1.id })
        for sample in ["ab <\"\\\n\u{7}é😀> ß", "a b"] { #expect(second.encode(sample) == first.encode(sample)) }
    }

    @Test func `parts may come in any order, and unknown keys are left alone`() throws {
        let json = #"""
            {"added_tokens": [{"id": 3, "content": "<x>"}], "news": [1, {"a": null}], "model": {"merges": ["#version: 0.2", "a b"],
             "vocab": {"b": 1, "ab": 2, "a": 0}, "type": "BPE", "other": 1.5e3}, "pre_tokenizer": null,
             "decoder": {"type": "Sequence", "decoders": [{"type": "Fuse"}]}}
            """#
        let tokenizer = try Tokenizer(json: Array(json.utf8))
        #expect(tokenizer.encode("ab<x>ba") == [2, 3, 1, 0])
    }

    /// As large as published vocabularies get: the issue's bound is one second on an idle machine.
    @Test func `a large vocabulary is read quickly`() throws {
        var random = SeededGenerator(seed: 1)
        var tokens: [String] = []
        var merges: [String] = []
        var known: Set<String> = []
        while merges.count < 150_000 {
            let left = tokens.isEmpty || Bool.random(using: &random) ? "Ġ" : random.pick(tokens)
            let letter = String(UnicodeScalar(UInt8(97 + Int.random(in: 0..<26, using: &random))))
            if left.count > 12 || !known.insert(left + letter).inserted { continue }
            tokens.append(left + letter)
            merges.append(#""\#(left) \#(letter)""#)
        }
        var text = TokenizerText()
        text.vocabulary = TokenizerText.bytes(and: tokens)
        text.merges = "[" + merges.joined(separator: ",\n") + "]"
        let json = text.json
        let clock = ContinuousClock()
        var size = 0
        let time = try clock.measure { size = try Tokenizer(json: json).size }
        #expect(size == 150_256)
        // Room for a busy machine.
        #expect(time < .seconds(5))
    }
}
