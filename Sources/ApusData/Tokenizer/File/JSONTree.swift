import ApusTensor

/// A small JSON value as it was read, keys in their order, so that it can be written again unchanged.
indirect enum JSONTree: Sendable, Equatable {
    case null
    case truth(Bool)
    case integer(Int)
    case number(Double)
    case string(String)
    case array([JSONTree])
    case object([Field])

    /// A key and its value.
    struct Field: Sendable, Equatable {
        var key: String
        var value: JSONTree
    }

    /// Values that one tree may have: far more than a tokenizer's parts do.
    static let mostValues = 100_000

    /// Reads one value.
    init(_ scanner: inout JSONScanner) throws(JSONScanner.Fault) {
        var left = JSONTree.mostValues
        self = try JSONTree.read(&scanner, &left)
    }

    /// An object, fields in this order.
    static func fields(_ fields: KeyValuePairs<String, JSONTree>) -> JSONTree {
        .object(fields.map { Field(key: $0.key, value: $0.value) })
    }

    private static func read(_ scanner: inout JSONScanner, _ left: inout Int) throws(JSONScanner.Fault) -> JSONTree {
        left -= 1
        if left < 0 { throw scanner.fault("more than \(mostValues) values in one part of a tokenizer") }
        switch try scanner.nextKind() {
        case .null:
            _ = try scanner.skipNull()
            return .null
        case .truth: return .truth(try scanner.truth())
        case .string: return .string(try scanner.string())
        case .number:
            let value = try scanner.number()
            return Int(exactly: value).map { .integer($0) } ?? .number(value)
        case .array:
            var values: [JSONTree] = []
            var array = try scanner.beginArray()
            while try scanner.nextElement(in: &array) { values.append(try read(&scanner, &left)) }
            return .array(values)
        case .object:
            var fields: [Field] = []
            var object = try scanner.beginObject()
            while let key = try scanner.nextKey(in: &object) {
                if fields.count < 64, fields.contains(where: { $0.key == key }) {
                    throw scanner.fault("the key '\(key)' is there twice")
                }
                fields.append(Field(key: key, value: try read(&scanner, &left)))
            }
            return .object(fields)
        }
    }

    /// The value of a key; nil if this is no object, has no such key, or has null there.
    subscript(key: String) -> JSONTree? {
        guard case .object(let fields) = self, let field = fields.first(where: { $0.key == key }) else { return nil }
        return field.value == .null ? nil : field.value
    }

    /// The text, if it is one.
    var text: String? { if case .string(let text) = self { text } else { nil } }
    /// The truth value, if it is one.
    var flag: Bool? { if case .truth(let flag) = self { flag } else { nil } }
    /// The whole number, if it is one.
    var wholeNumber: Int? { if case .integer(let value) = self { value } else { nil } }
    /// The elements, if it is an array.
    var elements: [JSONTree]? { if case .array(let elements) = self { elements } else { nil } }

    /// The value as an error shows it: short, on one line.
    var shown: String {
        switch self {
        case .array(let elements): "a list of \(elements.count)"
        case .object(let fields): fields.isEmpty ? "an empty object" : "an object"
        default: json(indent: 0)
        }
    }

    /// JSON text, two spaces a level, as if it stood `indent` levels deep.
    func json(indent: Int) -> String {
        let inner = String(repeating: "  ", count: indent + 1)
        let outer = String(repeating: "  ", count: indent)
        switch self {
        case .null: return "null"
        case .truth(let flag): return String(flag)
        case .integer(let value): return String(value)
        case .number(let value): return value.description
        case .string(let text): return jsonString(text)
        case .array(let elements):
            if elements.isEmpty { return "[]" }
            return "[\n" + elements.map { inner + $0.json(indent: indent + 1) }.joined(separator: ",\n") + "\n\(outer)]"
        case .object(let fields):
            if fields.isEmpty { return "{}" }
            let lines = fields.map { "\(inner)\(jsonString($0.key)): \($0.value.json(indent: indent + 1))" }
            return "{\n" + lines.joined(separator: ",\n") + "\n\(outer)}"
        }
    }
}
