extension TokenizerParts {
    /// The normalizers, in order.
    func normalizers() throws(TokenizerError) -> [Normalizer] {
        var found: [Normalizer] = []
        for tree in sequence(normalizer, of: "normalizers") {
            switch type(tree) {
            case "NFC": found.append(.composition)
            case "Prepend": found.append(.prepend(Array(try text(tree, "prepend", of: "normalizer").utf8)))
            case "Replace":
                let (pattern, content) = try replacement(tree, of: "normalizer")
                found.append(.replace(pattern, content))
            default:
                throw unsupported(
                    "normalizer", "'\(type(tree))'",
                    works: "NFC, Prepend, Replace of a text, a Sequence of these, or null")
            }
        }
        return found
    }

    /// A `Replace` of one text by another.
    func replacement(_ tree: JSONTree, of part: String) throws(TokenizerError) -> ([UInt8], [UInt8]) {
        guard let pattern = tree["pattern"]?["String"]?.text, !pattern.isEmpty else {
            let expression = tree["pattern"]?["Regex"]?.text
            throw unsupported(
                "\(part) Replace", expression.map { "of the expression '\($0)'" } ?? "without a text to look for",
                works: "a pattern of {\"String\": text}")
        }
        return (Array(pattern.utf8), Array(try text(tree, "content", of: part).utf8))
    }

    /// How normalised text is cut.
    func preTokenizerValue() throws(TokenizerError) -> PreTokenizer {
        var result = PreTokenizer()
        for tree in sequence(preTokenizer, of: "pretokenizers") {
            if result.isByteLevel || result.metaspace != nil {
                throw unsupported(
                    "pre_tokenizer", "'\(type(tree))' behind what turns text into symbols",
                    works: "ByteLevel or Metaspace at the end")
            }
            switch type(tree) {
            case "ByteLevel":
                result.isByteLevel = true
                result.addsPrefixSpace = try flag(tree, "add_prefix_space", default: true, of: "pre_tokenizer")
                if result.addsPrefixSpace, !result.splitters.isEmpty {
                    throw unsupported(
                        "pre_tokenizer ByteLevel", "add_prefix_space behind another pre-tokenizer", works: "false there"
                    )
                }
                if try flag(tree, "use_regex", default: true, of: "pre_tokenizer") {
                    result.splitters.append(.words(.gpt2))
                }
            case "Split": result.splitters.append(.words(try pattern(tree)))
            case "Digits":
                let individually = try flag(tree, "individual_digits", default: false, of: "pre_tokenizer")
                result.splitters.append(.digits(individually: individually))
            case "Metaspace":
                if !result.splitters.isEmpty {
                    throw unsupported(
                        "pre_tokenizer", "Metaspace behind another pre-tokenizer", works: "Metaspace alone")
                }
                result.metaspace = try metaspace(tree, of: "pre_tokenizer")
            default:
                throw unsupported(
                    "pre_tokenizer", "'\(type(tree))'",
                    works: "ByteLevel, Split by a known pattern, Digits, Metaspace, a Sequence of these, or null")
            }
        }
        return result
    }

    private func pattern(_ tree: JSONTree) throws(TokenizerError) -> WordPattern {
        let works = WordPattern.allCases.map { "\($0.name)'s" }.joined(separator: ", ")
        guard let expression = tree["pattern"]?["Regex"]?.text, let pattern = WordPattern(expression: expression) else {
            let found = tree["pattern"]?["Regex"]?.text ?? tree["pattern"]?["String"]?.text ?? "missing"
            throw unsupported(
                "pre_tokenizer Split", "by '\(found)'", works: "the patterns of \(works), letter for letter")
        }
        // These patterns match everything, so removing what does not match keeps all of it too.
        let behavior = try text(tree, "behavior", of: "pre_tokenizer Split")
        let inverts = try flag(tree, "invert", default: false, of: "pre_tokenizer Split")
        guard (behavior, inverts) == ("Isolated", false) || (behavior, inverts) == ("Removed", true) else {
            throw unsupported(
                "pre_tokenizer Split", "with behavior '\(behavior)' and invert \(inverts)",
                works: "behavior 'Isolated' with invert false")
        }
        return pattern
    }

    /// A mark for spaces, of the pre-tokenizer or the decoder.
    func metaspace(_ tree: JSONTree, of part: String) throws(TokenizerError) -> PreTokenizer.Metaspace {
        var result = PreTokenizer.Metaspace()
        let mark = try text(tree, "replacement", of: part)
        guard let scalar = mark.unicodeScalars.first, mark.unicodeScalars.count == 1 else {
            throw unsupported("\(part) Metaspace", "with the mark '\(mark)'", works: "a mark of one character")
        }
        result.mark = scalar.value
        if let scheme = tree["prepend_scheme"] {
            guard let prepend = scheme.text.flatMap(PreTokenizer.Metaspace.Prepend.init(rawValue:)) else {
                throw unsupported(
                    "\(part) Metaspace.prepend_scheme", scheme.shown,
                    works: PreTokenizer.Metaspace.Prepend.allCases.map(\.rawValue).joined(separator: ", "))
            }
            result.prepend = prepend
        }
        // The older spelling of the same choice.
        if try !flag(tree, "add_prefix_space", default: true, of: part) {
            guard tree["prepend_scheme"] == nil || result.prepend == .never else {
                throw inconsistent(
                    "\(part) Metaspace has add_prefix_space false and prepend_scheme '\(result.prepend)'")
            }
            result.prepend = .never
        }
        result.cuts = try flag(tree, "split", default: true, of: part)
        return result
    }

    /// Ids before and behind every encoded text.
    func template() throws(TokenizerError) -> (prefix: [Int32], suffix: [Int32]) {
        var result: (prefix: [Int32], suffix: [Int32])?
        for tree in sequence(postProcessor, of: "processors") {
            switch type(tree) {
            // Only moves the places that tokens are said to come from.
            case "ByteLevel": continue
            case "TemplateProcessing" where result == nil: result = try template(tree)
            default:
                throw unsupported(
                    "post_processor", "'\(type(tree))'\(result == nil ? "" : " behind TemplateProcessing")",
                    works: "ByteLevel, one TemplateProcessing, a Sequence of these, or null")
            }
        }
        return result ?? ([], [])
    }

    private func template(_ tree: JSONTree) throws(TokenizerError) -> (prefix: [Int32], suffix: [Int32]) {
        var sides: [[Int32]] = [[]]
        for piece in tree["single"]?.elements ?? [] {
            if piece["Sequence"] != nil {
                sides.append([])
            } else if let name = piece["SpecialToken"]?["id"]?.text {
                guard let ids = tree["special_tokens"]?[name]?["ids"]?.elements else {
                    throw inconsistent("post_processor TemplateProcessing has no ids for its token '\(name)'")
                }
                for id in ids {
                    guard let value = id.wholeNumber, value >= 0, value < TokenTable.idLimit else {
                        throw inconsistent("post_processor TemplateProcessing has the id \(id.shown) for '\(name)'")
                    }
                    sides[sides.count - 1].append(Int32(value))
                }
            } else {
                throw unsupported("post_processor TemplateProcessing", piece.shown, works: "SpecialToken and Sequence")
            }
        }
        guard sides.count == 2 else {
            throw unsupported(
                "post_processor TemplateProcessing.single", "a template with \(sides.count - 1) texts",
                works: "one Sequence")
        }
        return (sides[0], sides[1])
    }
}
