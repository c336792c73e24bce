import ApusTensor

extension TokenizerParts {
    /// The text of a `tokenizer.json`, keys in the order in which the `tokenizers` library writes them.
    var json: [UInt8] {
        var text = Array("{\n".utf8)
        func field(_ key: String, _ tree: JSONTree) { text += Array("  \"\(key)\": \(tree.json(indent: 1)),\n".utf8) }
        field("version", .string("1.0"))
        field("truncation", truncation)
        field("padding", padding)
        field("added_tokens", .array(addedTokens.sorted { $0.id < $1.id }.map(\.json)))
        field("normalizer", normalizer)
        field("pre_tokenizer", preTokenizer)
        field("post_processor", postProcessor)
        field("decoder", decoder)
        text += Array("  \"model\": {\n    \"type\": \"BPE\",\n    \"dropout\": null,\n".utf8)
        let options: KeyValuePairs<String, JSONTree> = [
            "unk_token": unknown.token.map { .string($0) } ?? .null, "continuing_subword_prefix": .null,
            "end_of_word_suffix": .null, "fuse_unk": .truth(unknown.isFused),
            "byte_fallback": .truth(unknown.usesBytes),
            "ignore_merges": .truth(ignoresMerges),
        ]
        for (key, value) in options { text += Array("    \"\(key)\": \(value.json(indent: 2)),\n".utf8) }
        appendVocabulary(to: &text)
        appendMerges(to: &text)
        text += Array("  }\n}".utf8)
        return text
    }

    private func appendVocabulary(to text: inout [UInt8]) {
        text += Array("    \"vocab\": {".utf8)
        var separator = "\n"
        for id in 0..<tokens.idEnd {
            guard let token = tokens[id] else { continue }
            text += Array("\(separator)      \(jsonString(String(decoding: token, as: UTF8.self))): \(id)".utf8)
            separator = ",\n"
        }
        text += Array("\n    },\n".utf8)
    }

    private func appendMerges(to text: inout [UInt8]) {
        text += Array("    \"merges\": [".utf8)
        var separator = "\n"
        for rule in rules {
            guard let left = tokens[Int(rule.left)], let right = tokens[Int(rule.right)] else { continue }
            let halves = [left, right].map { jsonString(String(decoding: $0, as: UTF8.self)) }
            text += Array("\(separator)      [\n        \(halves[0]),\n        \(halves[1])\n      ]".utf8)
            separator = ",\n"
        }
        text += Array("\n    ]\n".utf8)
    }
}

extension AddedToken {
    fileprivate var json: JSONTree {
        .fields([
            "id": .integer(Int(id)), "content": .string(content), "single_word": .truth(isSingleWord),
            "lstrip": .truth(stripsLeft), "rstrip": .truth(stripsRight), "normalized": .truth(isNormalized),
            "special": .truth(isSpecial),
        ])
    }
}
