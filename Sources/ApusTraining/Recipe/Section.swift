import ApusModels

/// A group of keys that is being read.
///
/// Each method takes one key's value as the type it must have, tells the log what is wrong otherwise, and then returns
/// something usable, so that reading goes on and finds the rest.
struct Section {
    /// Dotted name; empty for the whole recipe.
    let name: String
    let place: Recipe.Error.Place
    let log: FindingLog
    private var entries: [String: SourceNode.Entry] = [:]

    /// A group that the recipe leaves out: every key has its default.
    init(absent name: String, in parent: Section) {
        self.name = name
        self.place = parent.place
        self.log = parent.log
    }

    /// The group `node`; tells `log` about keys that it cannot have.
    init(_ node: SourceNode, name: String, log: FindingLog) {
        self.name = name
        self.place = node.place
        self.log = log
        guard case .mapping(let list) = node.content else { return }
        let known = RecipeKeys.keys(of: name)
        for entry in list {
            if known.contains(entry.key) {
                entries[entry.key] = entry
            } else {
                let kind = name.isEmpty ? "a recipe" : name
                log.add(
                    entry.place, full(entry.key), "is no key of \(kind)",
                    RecipeKeys.remedy(unknown: entry.key, in: name))
            }
        }
    }

    /// The dotted name of `key`.
    func full(_ key: String) -> String { name.isEmpty ? key : "\(name).\(key)" }

    /// The value of `key`; `nil` when it is left out or null.
    func value(_ key: String) -> SourceNode? {
        guard let node = entries[key]?.value, !node.isNull else { return nil }
        return node
    }

    /// Whether `key` is there and says that there is no value.
    func isNull(_ key: String) -> Bool { entries[key]?.value.isNull ?? false }

    /// Tells the log what is wrong with `key`.
    func flaw(_ key: String, _ reason: String, _ remedy: String) {
        log.add(entries[key]?.place ?? place, full(key), reason, remedy)
    }

    /// Tells the log what is wrong with `key` unless `condition` holds.
    ///
    /// `others` are the full names of further keys that the condition reads; when one of them is wrong in itself,
    /// nothing is said.
    func require(
        _ condition: @autoclosure () -> Bool, _ key: String, with others: [String] = [],
        _ reason: @autoclosure () -> String, _ remedy: @autoclosure () -> String
    ) {
        guard log.areSound(others + [full(key)]), !condition() else { return }
        flaw(key, reason(), remedy())
    }

    private func missing<Value>(_ key: String, _ remedy: String, _ value: Value) -> Value {
        flaw(key, "is missing", remedy)
        return value
    }

    private func wrong<Value>(_ key: String, _ node: SourceNode, _ remedy: String, _ value: Value) -> Value {
        flaw(key, "is \(node.shown)", remedy)
        return value
    }
}

extension Section {
    /// A whole number within `range`; required when there is no default.
    func integer(_ key: String, _ range: ClosedRange<Int>, default value: Int? = nil, example: Int) -> Int {
        let needed = "an integer is needed, for example \(example)"
        guard let node = self.value(key) else { return value ?? missing(key, needed, example) }
        return integer(key, node, range, example: example)
    }

    /// A whole number within `range`, or `nil` when the key is null; `value` when it is left out.
    func optionalInteger(_ key: String, _ range: ClosedRange<Int>, default value: Int?, example: Int) -> Int? {
        if isNull(key) { return nil }
        guard let node = self.value(key) else { return value }
        return integer(key, node, range, example: example)
    }

    private func integer(_ key: String, _ node: SourceNode, _ range: ClosedRange<Int>, example: Int) -> Int {
        guard case .scalar(let text, isPlain: true) = node.content, Self.isWholeNumber(text) else {
            return wrong(key, node, "an integer is needed, for example \(example)", example)
        }
        let number = Int(text.filter { $0 != "_" })
        if let number, range.contains(number) { return number }
        let nearest =
            text.hasPrefix("-") || number.map { $0 < range.lowerBound } == true ? range.lowerBound : range.upperBound
        return wrong(
            key, node,
            "an integer from \(range.lowerBound) to \(range.upperBound) is needed; the nearest is \(nearest)", example)
    }

    private static func isWholeNumber(_ text: String) -> Bool {
        let digits =
            text.utf8.first == UInt8(ascii: "-") || text.utf8.first == UInt8(ascii: "+")
            ? text.utf8.dropFirst() : text.utf8[...]
        guard let first = digits.first, first != UInt8(ascii: "_") else { return false }
        return digits.allSatisfy { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) || $0 == UInt8(ascii: "_") }
    }

    /// One whole number, or a list of them; `nil` when the key is left out.
    func integers(_ key: String, _ range: ClosedRange<Int>, example: String) -> (values: [Int], isList: Bool)? {
        guard let node = value(key) else { return nil }
        guard case .sequence(let items) = node.content else {
            guard case .scalar = node.content else {
                return wrong(key, node, "an integer or a list of integers is needed, for example \(example)", nil)
            }
            return ([integer(key, node, range, example: range.lowerBound)], false)
        }
        return (items.map { integer(key, $0, range, example: range.lowerBound) }, true)
    }

    /// A real number within `range`; required when there is no default.
    func real<Real: RecipeReal>(_ key: String, _ range: RealRange, default value: Real? = nil, example: Real) -> Real {
        let needed = "\(range.words) is needed, for example \(example)"
        guard let node = self.value(key) else { return value ?? missing(key, needed, example) }
        guard case .scalar(let text, isPlain: true) = node.content else { return wrong(key, node, needed, example) }
        guard text.utf8.allSatisfy({ "0123456789+-.eE_".utf8.contains($0) }),
            let number = Real(text.filter { $0 != "_" })
        else {
            let isNoNumber = ["nan", "inf", "infinity"].contains(text.lowercased().filter { $0.isLetter })
            return wrong(
                key, node, isNoNumber ? "\(range.words), and a finite one, is needed, for example \(example)" : needed,
                example)
        }
        guard number.isFinite, range.contains(Double(number)) else { return wrong(key, node, needed, example) }
        return number
    }

    /// A real number within `range`, or `nil` when the key is null; `value` when it is left out.
    func optionalReal<Real: RecipeReal>(_ key: String, _ range: RealRange, default value: Real?, example: Real) -> Real?
    {
        if isNull(key) { return nil }
        return self.value(key) == nil ? value : real(key, range, example: example)
    }

    /// `true` or `false`.
    func flag(_ key: String, default value: Bool) -> Bool {
        guard let node = self.value(key) else { return value }
        if case .scalar(let text, isPlain: true) = node.content, let flag = Bool(text.lowercased()) { return flag }
        return wrong(key, node, "true or false is needed", value)
    }

    /// Any text but an empty one.
    func text(_ key: String, example: String) -> String {
        guard let node = value(key) else { return missing(key, "\(example) is needed", "") }
        guard case .scalar(let text, _) = node.content, !text.isEmpty, !text.unicodeScalars.contains("\0") else {
            return wrong(key, node, "\(example) is needed", "")
        }
        return text
    }

    /// One of the names of `Choice`.
    func choice<Choice>(_ key: String, default value: Choice) -> Choice
    where Choice: RawRepresentable<String> & CaseIterable {
        guard let node = self.value(key) else { return value }
        let names = Choice.allCases.map(\.rawValue)
        let list = names.count == 1 ? names[0] : "one of \(names.joined(separator: ", "))"
        guard case .scalar(let text, _) = node.content else { return wrong(key, node, "\(list) is needed", value) }
        if let choice = Choice(rawValue: text) { return choice }
        let near = nearestName(to: text, among: names).map { "; did you mean \($0)?" } ?? ""
        return wrong(key, node, "\(list) is needed\(near)", value)
    }

    /// Bytes, as a number or with a unit; `nil` when the key is left out or null.
    func bytes(_ key: String) -> Int? {
        guard let node = value(key) else { return nil }
        if case .scalar(let text, _) = node.content, let count = byteCount(text), count > 0 { return count }
        return wrong(key, node, "a number of bytes is needed, for example 8GiB", nil)
    }

    /// The group below `key`; an empty one when it is left out.
    func section(_ key: String) -> Section {
        guard let node = value(key) else { return Section(absent: full(key), in: self) }
        guard case .mapping = node.content else {
            let keys = RecipeKeys.keys(of: full(key)).prefix(4).joined(separator: ", ")
            return wrong(key, node, "a group of keys is needed (\(keys), ...)", Section(absent: full(key), in: self))
        }
        return Section(node, name: full(key), log: log)
    }
}
