/// One value of a recipe's text, with the place it came from: the tree that overrides change and ``Section`` reads.
struct SourceNode {
    /// A key of a group with its value.
    struct Entry {
        let key: String
        let place: Recipe.Error.Place
        var value: SourceNode
    }

    enum Content {
        case scalar(String, isPlain: Bool)
        case sequence([SourceNode])
        case mapping([Entry])
    }

    var content: Content
    var place: Recipe.Error.Place

    /// Whether this says that there is no value: nothing at all, `null` or `~`.
    var isNull: Bool {
        if case .scalar(let text, isPlain: true) = content {
            return text.isEmpty || text == "~" || text.lowercased() == "null"
        }
        return false
    }

    /// For messages, after the word "is".
    var shown: String {
        switch content {
        case .scalar(_, isPlain: true) where isNull: "empty"
        case .scalar(let text, isPlain: true) where Double(text)?.isFinite == true: display(text)
        case .scalar(let text, isPlain: true): "\"\(display(text))\""
        case .scalar(let text, isPlain: false): "the text \"\(display(text))\" in quotes"
        case .sequence: "a list"
        case .mapping: "a group of keys"
        }
    }

    /// Puts `value` at the end of `path`, making the groups on the way; a value on the way that is no group gives way.
    mutating func set(_ path: ArraySlice<String>, to value: SourceNode) {
        guard let key = path.first else {
            self = value
            return
        }
        var entries: [Entry] = []
        if case .mapping(let existing) = content { entries = existing } else { place = value.place }
        if let index = entries.firstIndex(where: { $0.key == key }) {
            let isOnTheWay = if case .mapping = entries[index].value.content { path.count > 1 } else { false }
            var entry = Entry(
                key: key, place: isOnTheWay ? entries[index].place : value.place, value: entries[index].value)
            entry.value.set(path.dropFirst(), to: value)
            entries[index] = entry
        } else {
            var made = SourceNode(content: .mapping([]), place: value.place)
            made.set(path.dropFirst(), to: value)
            entries.append(Entry(key: key, place: value.place, value: made))
        }
        content = .mapping(entries)
    }
}

extension SourceNode {
    /// Levels of keys that a recipe can have, and a few more.
    static let deepest = 16

    /// Applies `dotted.key=value`, whose value is YAML.
    mutating func apply(override text: String, log: FindingLog) {
        let example = "write key=value, for example training.steps=500"
        guard let equals = text.firstIndex(of: "=") else {
            log.add(.override(text), "", "has no '='", example)
            return
        }
        let path = text[..<equals].split(separator: ".", omittingEmptySubsequences: false).map(trimmed)
        guard path.count <= Self.deepest, !path.contains("") else {
            log.add(.override(text), "", "names no key before '='", example)
            return
        }
        let value = String(text[text.index(after: equals)...])
        guard value.utf8.count <= RecipeFile.largestSize else {
            log.add(.override(text), path.joined(separator: "."), "is too long", "put long values into the recipe file")
            return
        }
        guard let node = SourceNode(yaml: value, log: log, override: text, key: path.joined(separator: ".")) else {
            return
        }
        set(path[...], to: node)
    }
}

/// `text` without spaces around it.
func trimmed(_ text: Substring) -> String {
    var rest = text
    while rest.first?.isWhitespace == true { rest.removeFirst() }
    while rest.last?.isWhitespace == true { rest.removeLast() }
    return String(rest)
}
