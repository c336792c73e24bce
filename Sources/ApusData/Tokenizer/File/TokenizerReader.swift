import ApusTensor

/// Reads the text of a `tokenizer.json` in one pass; nothing is built but what is kept.
struct TokenizerReader {
    private var parts: TokenizerParts
    private var merges = MergeTexts()
    private var hasModel = false

    /// The parts of a file's text.
    ///
    /// - Parameter path: where the text is from, for messages.
    static func read(_ bytes: UnsafeRawBufferPointer, path: String) throws(TokenizerError) -> TokenizerParts {
        var reader = TokenizerReader(parts: TokenizerParts(path: path))
        var scanner = JSONScanner(bytes)
        do {
            try reader.readFile(&scanner)
        } catch let fault as JSONScanner.Fault {
            throw .malformed(path: path, offset: fault.offset, reason: fault.reason)
        } catch let error as TokenizerError {
            throw error
        } catch {
            throw .malformed(path: path, offset: scanner.offset, reason: "\(error)")
        }
        return try reader.finish()
    }

    private init(parts: TokenizerParts) { self.parts = parts }

    private mutating func readFile(_ scanner: inout JSONScanner) throws {
        var seen: Set<String> = []
        var file = try scanner.beginObject()
        while let key = try scanner.nextKey(in: &file) {
            if !seen.insert(key).inserted { throw scanner.fault("the key '\(key)' is there twice") }
            switch key {
            case "version":
                let version = try scanner.string("the format's version")
                if version != "1.0" { throw scanner.fault("version '\(version)' of the format, where 1.0 is known") }
            case "truncation": parts.truncation = try JSONTree(&scanner)
            case "padding": parts.padding = try JSONTree(&scanner)
            case "normalizer": parts.normalizer = try JSONTree(&scanner)
            case "pre_tokenizer": parts.preTokenizer = try JSONTree(&scanner)
            case "post_processor": parts.postProcessor = try JSONTree(&scanner)
            case "decoder": parts.decoder = try JSONTree(&scanner)
            case "added_tokens": try readAddedTokens(&scanner)
            case "model": try readModel(&scanner)
            default: try scanner.skipValue()
            }
        }
        try scanner.end()
    }

    // MARK: Added tokens

    private mutating func readAddedTokens(_ scanner: inout JSONScanner) throws {
        var array = try scanner.beginArray()
        while try scanner.nextElement(in: &array) {
            let tree = try JSONTree(&scanner)
            guard let content = tree["content"]?.text, let id = tree["id"]?.wholeNumber else {
                throw scanner.fault("an added token without its content and id")
            }
            guard id >= 0, id < TokenTable.idLimit else { throw tooLarge(id, &scanner) }
            func flag(_ key: String) throws -> Bool {
                guard let value = tree[key] else { return false }
                guard let flag = value.flag else { throw scanner.fault("\(key) is \(value.shown), not true or false") }
                return flag
            }
            parts.addedTokens.append(
                AddedToken(
                    content, id: Int32(id), isSpecial: try flag("special"), isSingleWord: try flag("single_word"),
                    stripsLeft: try flag("lstrip"), stripsRight: try flag("rstrip"),
                    isNormalized: try flag("normalized")))
        }
    }

    private func tooLarge(_ id: Int, _ scanner: inout JSONScanner) -> JSONScanner.Fault {
        scanner.fault("the id \(id), where ids are below \(TokenTable.idLimit)")
    }

    // MARK: Model

    private mutating func readModel(_ scanner: inout JSONScanner) throws {
        hasModel = true
        var seen: Set<String> = []
        var model = try scanner.beginObject()
        while let key = try scanner.nextKey(in: &model) {
            if !seen.insert(key).inserted { throw scanner.fault("the key '\(key)' is there twice") }
            switch key {
            case "vocab": try readVocabulary(&scanner)
            case "merges": try merges.read(&scanner)
            default: try readOption(key, &scanner)
            }
        }
        for key in ["vocab", "merges"] where !seen.contains(key) { throw scanner.fault("a model without '\(key)'") }
    }

    private mutating func readOption(_ key: String, _ scanner: inout JSONScanner) throws {
        if try scanner.skipNull() { return }
        switch key {
        case "type":
            let type = try scanner.string("the model's type")
            if type != "BPE" { throw parts.unsupported("model", "'\(type)'", works: "BPE") }
        case "unk_token": parts.unknown.token = try scanner.string("unk_token")
        case "fuse_unk": parts.unknown.isFused = try scanner.truth("fuse_unk")
        case "byte_fallback": parts.unknown.usesBytes = try scanner.truth("byte_fallback")
        case "ignore_merges": parts.ignoresMerges = try scanner.truth("ignore_merges")
        case "dropout":
            let chance = try scanner.number("dropout")
            if chance != 0 { throw parts.unsupported("model.dropout", "\(chance)", works: "null or 0") }
        case "continuing_subword_prefix", "end_of_word_suffix":
            let text = try scanner.string(key)
            if !text.isEmpty { throw parts.unsupported("model.\(key)", "'\(text)'", works: "null or an empty text") }
        default: try scanner.skipValue()
        }
    }

    private mutating func readVocabulary(_ scanner: inout JSONScanner) throws {
        guard try scanner.nextKind() == .object else {
            throw parts.unsupported("model.vocab", "a list", works: "the object of a BPE model, texts to ids")
        }
        var vocabulary = try scanner.beginObject()
        var text: [UInt8] = []
        while try scanner.nextKey(in: &vocabulary, into: &text) {
            let id = try scanner.wholeNumber("the id of a token")
            guard id < TokenTable.idLimit else { throw tooLarge(id, &scanner) }
            if !parts.tokens.insert(text, id: id) {
                let text = String(decoding: text, as: UTF8.self)
                throw scanner.fault("the token '\(text)' or its id \(id) is in the vocabulary twice")
            }
        }
    }

    // MARK: What belongs together

    private mutating func finish() throws(TokenizerError) -> TokenizerParts {
        if !hasModel { throw parts.inconsistent("there is no model") }
        parts.rules = try merges.rules(parts)
        if let token = parts.unknown.token, parts.tokens.id(of: token) == nil {
            throw parts.inconsistent("unk_token '\(token)' is not in the vocabulary")
        }
        parts.addedTokens.removeAll { $0.content.isEmpty }
        var ids: [Int32: String] = [:]
        var contents: Set<String> = []
        for token in parts.addedTokens {
            if let known = parts.tokens.id(of: token.content), known != Int(token.id) {
                throw parts.inconsistent(
                    "the added token '\(token.content)' has the id \(token.id), and \(known) in the vocabulary")
            }
            if parts.tokens.id(of: token.content) == nil, let text = parts.tokens[Int(token.id)] {
                let other = String(decoding: text, as: UTF8.self)
                throw parts.inconsistent("the id \(token.id) belongs to '\(other)' and to '\(token.content)'")
            }
            if let other = ids.updateValue(token.content, forKey: token.id) {
                throw parts.inconsistent("the id \(token.id) belongs to '\(other)' and to '\(token.content)'")
            }
            if !contents.insert(token.content).inserted {
                throw parts.inconsistent("the added token '\(token.content)' is there twice")
            }
        }
        return parts
    }
}
