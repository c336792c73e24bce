import Testing

@testable import ApusData

/// Added tokens: where they are found, and what they take of the text around them.
@Suite struct AddedTokenTests {
    private func tokenizer(_ tokens: String..., normalizer: String = "null") throws -> Tokenizer {
        var text = TokenizerText()
        text.normalizer = normalizer
        text.addedTokens =
            "[" + tokens.enumerated().map { #"{"id": \#(256 + $0.offset), \#($0.element)}"# }.joined(separator: ", ")
            + "]"
        return try text.tokenizer()
    }

    /// Ids with added tokens as they are and all else as characters.
    private func shown(_ ids: [Int32]) -> [String] {
        ids.reduce(into: []) { parts, id in
            if id < 256 {
                if let last = parts.last, !last.hasPrefix("#") {
                    parts[parts.count - 1] += "\(Character(Unicode.Scalar(UInt8(id))))"
                } else {
                    parts.append("\(Character(Unicode.Scalar(UInt8(id))))")
                }
            } else {
                parts.append("#\(id - 256)")
            }
        }
    }

    @Test func `the leftmost is found, and the longest of those that begin together`() throws {
        let tokenizer = try tokenizer(
            #""content": "ab""#, #""content": "abcd""#, #""content": "bcd""#, #""content": "cde""#)
        #expect(shown(tokenizer.encode("xabcdex")) == ["x", "#1", "ex"])
        #expect(shown(tokenizer.encode("xabcx")) == ["x", "#0", "cx"])
        #expect(shown(tokenizer.encode("bcde")) == ["#2", "e"])
        #expect(shown(tokenizer.encode("ab")) == ["#0"])
        #expect(shown(tokenizer.encode("a")) == ["a"])
    }

    @Test func `special ones are text unless they are asked for`() throws {
        let tokenizer = try tokenizer(#""content": "<e>", "special": true"#, #""content": "<t>", "special": false"#)
        #expect(shown(tokenizer.encode("a<e><t>")) == ["a<e>", "#1"])
        #expect(shown(tokenizer.prompt("a<e><t>")) == ["a", "#0", "#1"])
        #expect(tokenizer.text(of: [97, 256, 257]) == "a<t>")
        #expect(tokenizer.addedTokens.map(\.isSpecial) == [true, false])
        #expect(tokenizer.id(of: "<e>") == 256 && tokenizer.id(of: "Ġ") == 32 && tokenizer.id(of: "<x>") == nil)
    }

    @Test func `a special one hides what it reaches over, read or not`() throws {
        let tokenizer = try tokenizer(#""content": "<ab>", "special": true"#, #""content": "b>c""#, #""content": "<a""#)
        #expect(shown(tokenizer.encode("<ab>c")) == ["<ab>c"])
        #expect(shown(tokenizer.prompt("<ab>c")) == ["#0", "c"])
    }

    @Test func `white space around is taken in`() throws {
        let tokenizer = try tokenizer(
            #""content": "<l>", "lstrip": true"#, #""content": "<r>", "rstrip": true"#,
            #""content": "<b>", "lstrip": true, "rstrip": true"#)
        #expect(shown(tokenizer.encode("a \u{3000}\n<l> b")) == ["a", "#0", " b"])
        #expect(shown(tokenizer.encode("a <r> \u{A0}b")) == ["a ", "#1", "b"])
        #expect(shown(tokenizer.encode("a <b> <b> b")) == ["a", "#2", "#2", "b"])
        #expect(shown(tokenizer.encode(" <l>")) == ["#0"])
    }

    @Test func `a word of its own is not found inside another`() throws {
        let tokenizer = try tokenizer(#""content": "cat", "single_word": true"#)
        for text in ["cats", "concat", "cat_", "écat", "cat\u{301}", "1cat"] {
            #expect(!tokenizer.encode(text).contains(256))
        }
        for text in ["cat", "a cat.", "-cat-", "cat's", "\u{1F600}cat"] {
            #expect(tokenizer.encode(text).contains(256))
        }
    }

    @Test func `normalised ones are looked for in normalised text, as their own`() throws {
        let tokenizer = try tokenizer(
            #""content": "e\u0301t", "normalized": true"#, #""content": "o\u0301t", "normalized": false"#,
            normalizer: #"{"type": "NFC"}"#)
        #expect(shown(tokenizer.encode("xét")) == ["x", "#0"])
        #expect(shown(tokenizer.encode("xe\u{301}t")) == ["x", "#0"])
        #expect(!tokenizer.encode("ót").contains(257))
        #expect(tokenizer.encode("o\u{301}t") == [257])
        // Without a normaliser the flag changes nothing.
        #expect(try self.tokenizer(#""content": "ab", "normalized": true"#).encode("xaby") == [120, 256, 121])
    }

    @Test func `text around one is cut by itself`() throws {
        var text = TokenizerText.marked()
        text.addedTokens = #"[{"id": 300, "content": "<x>"}]"#
        // Each stretch gets the mark of a beginning.
        #expect(try text.tokenizer().encode("a<x>a") == [4, 300, 4])
        text.normalizer = "null"
        text.preTokenizer = #"{"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": true}"#
        #expect(try text.tokenizer().encode("a<x>a") == [4, 300, 2])
        #expect(try text.tokenizer().encode("<x>a") == [300, 2])
    }

    @Test func `thousands are as quick to look for as one`() throws {
        let many = (0..<3000).map { #""content": "<reserved_\#($0)>""# }
        var text = TokenizerText()
        text.addedTokens =
            "[" + many.enumerated().map { #"{"id": \#(256 + $0.offset), \#($0.element)}"# }.joined(separator: ", ")
            + "]"
        let tokenizer = try text.tokenizer()
        let document = Array(String(repeating: "<reserved_2999 <reserved_17>", count: 50_000).utf8)
        let clock = ContinuousClock()
        var ids: [Int32] = []
        let time = clock.measure { ids = tokenizer.encode(document) }
        #expect(ids.filter { $0 == 256 + 17 }.count == 50_000)
        #expect(time < .seconds(10))
    }
}
