import Yams

extension SourceNode {
    /// Values and keys that one recipe may hold.
    private static let mostNodes = 20_000
    /// Aliases that are composed at all.
    ///
    /// A handful cannot grow into much, and every one is refused afterwards.
    private static let mostAliases = 16

    /// The tree of `yaml`; `nil` after telling `log` why there is none.
    ///
    /// - Parameters:
    ///   - override: the override that the text comes from, instead of a file.
    ///   - key: the dotted key that the text is the value of.
    init?(yaml: String, log: FindingLog, override: String? = nil, key: String = "") {
        let origin = override.map { Recipe.Error.Place.override($0) }
        guard yaml.utf8.count <= RecipeFile.largestSize else {
            log.add(
                origin ?? .file, key, "has more than \(RecipeFile.largestSize) bytes",
                "a recipe takes a few thousand; give the recipe's own path")
            return nil
        }
        guard Self.aliasLikeWords(in: yaml) <= Self.mostAliases else {
            log.add(origin ?? .file, key, "uses many aliases (*name)", "write each value out where it belongs")
            return nil
        }
        let text = yaml.hasPrefix("\u{FEFF}") ? String(yaml.unicodeScalars.dropFirst()) : yaml
        do {
            // Anchors live as long as the parser, and no rule for types is wanted: `Section` knows which it needs.
            let parser = try Parser(yaml: text, resolver: .basic, encoding: .utf8)
            let root = try parser.singleRoot()
            var conversion = Conversion(log: log, origin: origin, budget: Self.mostNodes)
            let node = withExtendedLifetime(parser) { root.flatMap { conversion.node($0, path: key, depth: 0) } }
            if let node {
                self = node
            } else if root == nil {
                self.init(content: .scalar("", isPlain: true), place: origin ?? .file)
            } else {
                return nil
            }
        } catch {
            Self.report(error, in: text, log: log, origin: origin, key: key)
            return nil
        }
    }

    /// Words that begin with `*`, in values, quotes and comments alike: never fewer than there are aliases.
    private static func aliasLikeWords(in yaml: String) -> Int {
        var count = 0
        var startsWord = true
        var afterStar = false
        for byte in yaml.utf8 {
            let isSpace = byte == 0x20 || (0x09...0x0D).contains(byte)
            if afterStar, !isSpace { count += 1 }
            afterStar = startsWord && byte == UInt8(ascii: "*")
            startsWord = isSpace || "[{,:-?".utf8.contains(byte)
        }
        return count
    }
}

/// Turns Yams' nodes into ours, within bounds on depth and number.
private struct Conversion {
    let log: FindingLog
    let origin: Recipe.Error.Place?
    var budget: Int

    mutating func node(_ node: Node, path: String, depth: Int) -> SourceNode? {
        let place = origin ?? node.mark.map { .line($0.line) } ?? .file
        budget -= 1
        guard budget >= 0, depth <= SourceNode.deepest else {
            // Told once: everything around it fails for the same reason.
            if budget > -2 {
                log.add(
                    place, path, "nests or holds more than a recipe can",
                    "see Recipes/quickstart.yaml for a recipe's shape")
                budget = -2
            }
            return nil
        }
        if node.anchor != nil {
            log.add(place, path, "has an anchor (&name)", "recipes use no anchors and aliases; write the value out")
            return nil
        }
        let tags: [Tag.Name] = [.implicit, .nonSpecific, .str, .seq, .map]
        guard tags.contains(where: { Tag($0) == node.tag || $0.rawValue == node.tag.rawValue }) else {
            log.add(place, path, "has the tag \(display(node.tag.rawValue))", "recipes use no tags; remove it")
            return nil
        }
        switch node {
        case .scalar(let scalar):
            return SourceNode(
                content: .scalar(scalar.string, isPlain: scalar.style == .plain || scalar.style == .any), place: place)
        case .sequence(let sequence):
            var items: [SourceNode] = []
            for item in sequence {
                guard let item = self.node(item, path: path, depth: depth + 1) else { return nil }
                items.append(item)
            }
            return SourceNode(content: .sequence(items), place: place)
        case .mapping(let mapping):
            var entries: [SourceNode.Entry] = []
            for (key, value) in mapping {
                let place = origin ?? key.mark.map { .line($0.line) } ?? .file
                guard case .scalar(let name) = key, key.anchor == nil else {
                    log.add(place, path, "has a key that is no plain word", "write each key as a word before a colon")
                    return nil
                }
                let inner = path.isEmpty ? name.string : "\(path).\(name.string)"
                guard let value = self.node(value, path: inner, depth: depth + 1) else { return nil }
                entries.append(SourceNode.Entry(key: name.string, place: place, value: value))
            }
            return SourceNode(content: .mapping(entries), place: place)
        case .alias:
            log.add(place, path, "is an alias (*name)", "recipes use no anchors and aliases; write the value out")
            return nil
        }
    }
}

extension SourceNode {
    /// Tells `log` what Yams could not read.
    private static func report(
        _ error: any Error, in text: String, log: FindingLog, origin: Recipe.Error.Place?, key: String
    ) {
        func place(_ line: Int) -> Recipe.Error.Place { origin ?? .line(line) }
        switch error as? YamlError {
        case .scanner(_, let problem, let mark, _), .parser(_, let problem, let mark, _):
            let line = lines(of: text).dropFirst(mark.line - 1).first ?? ""
            let hasTab = line.prefix { $0 == " " || $0 == "\t" }.contains("\t")
            log.add(
                place(mark.line), key, "is not YAML at column \(mark.column) (\(problem))",
                hasTab
                    ? "indent with spaces, not with tabs"
                    : "check the colon after each key, the indentation and closing quotes and brackets here and just above"
            )
        case .composer(_, let problem, let mark, _):
            let isSecond = problem.contains("another document")
            log.add(
                place(mark.line), key, isSecond ? "holds a second document" : "is not YAML (\(problem))",
                isSecond ? "keep one document in a recipe" : "recipes use no anchors and aliases; write the value out")
        case .reader(let problem, let offset, _, _):
            let line = text.prefix(offset ?? 0).reduce(1) { $0 + ($1.isNewline ? 1 : 0) }
            log.add(place(line), key, "is not text (\(problem))", "save the recipe as plain UTF-8 text")
        case .duplicatedKeysInMapping(let names, let context):
            let name = names.first ?? ""
            let (path, others) = occurrences(of: name, line: context.mark.line, column: context.mark.column, in: text)
            let full = key.isEmpty ? path : "\(key).\(path)"
            let again =
                others.isEmpty ? "" : " and again in line \(others.prefix(3).map(String.init).joined(separator: ", "))"
            log.add(
                place(context.mark.line), full, "is given here\(origin == nil ? again : "") more than once",
                "keep one of them")
        default:
            log.add(
                origin ?? .file, key, "is not YAML (\(display("\(error)")))",
                "see Recipes/quickstart.yaml for a recipe's shape")
        }
    }

    private static func lines(of text: String) -> [Substring] {
        text.split(omittingEmptySubsequences: false, whereSeparator: \.isNewline)
    }

    /// The dotted path of the key at a line and column (from 1) of block-style YAML, read off the indentation above it,
    /// and the later lines of the same group that begin with the same key.
    private static func occurrences(of name: String, line: Int, column: Int, in text: String) -> (
        path: String, again: [Int]
    ) {
        let lines = lines(of: text)
        func indentation(_ line: Substring) -> Int? {
            let indent = line.prefix { $0 == " " }.count
            let rest = line.dropFirst(indent)
            return rest.isEmpty || rest.first == "#" ? nil : indent
        }
        func key(_ line: Substring) -> String { trimmed(line.prefix { $0 != ":" }) }
        var path = [name]
        var level = column - 1
        for index in stride(from: line - 2, through: 0, by: -1) where level > 0 && path.count < deepest {
            guard index < lines.count, let indent = indentation(lines[index]), indent < level else { continue }
            path.append(key(lines[index]))
            level = indent
        }
        var again: [Int] = []
        for (index, text) in lines.enumerated().dropFirst(line) {
            guard let indent = indentation(text) else { continue }
            if indent < column - 1 { break }
            if indent == column - 1, key(text) == name { again.append(index + 1) }
        }
        return (path.reversed().joined(separator: "."), again)
    }
}
