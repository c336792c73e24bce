import ApusTensor

/// A JSON value whose whole numbers, other numbers and truth values stay apart, and whose text is always the same.
enum JSONValue: Equatable {
    case null
    case bool(Bool)
    case integer(Int)
    case number(Double)
    case string(String)
    case array([JSONValue])
    case object([String: JSONValue])

    /// The value as it is shown in an error: short, on one line.
    var shown: String {
        switch self {
        case .null: "null"
        case .bool(let value): String(value)
        case .integer(let value): String(value)
        case .number(let value): value.description
        case .string(let text): quoted(text)
        case .array(let elements): "a list of \(elements.count)"
        case .object: "an object"
        }
    }

    /// A number that reads back as the same `Float`, with no more digits than that takes.
    static func float(_ value: Float) -> JSONValue { .number(Double(value.description) ?? Double(value)) }

    /// `value`, or null for `nil`.
    static func optional<Wrapped>(_ value: Wrapped?, _ form: (Wrapped) -> JSONValue) -> JSONValue {
        value.map(form) ?? .null
    }
}

extension JSONValue {
    /// JSON text, keys sorted, two spaces a level, a newline at the end; lists of plain values stay on one line.
    var text: String { formatted(indent: 0) + "\n" }

    private func formatted(indent: Int) -> String {
        let inner = String(repeating: " ", count: indent + 2)
        let outer = String(repeating: " ", count: indent)
        switch self {
        case .null: return "null"
        case .bool(let value): return String(value)
        case .integer(let value): return String(value)
        case .number(let value): return value.description
        case .string(let text): return jsonString(text)
        case .array(let elements):
            if elements.allSatisfy(\.isPlain) {
                return "[" + elements.map { $0.formatted(indent: 0) }.joined(separator: ", ") + "]"
            }
            return "[\n" + elements.map { inner + $0.formatted(indent: indent + 2) }.joined(separator: ",\n")
                + "\n\(outer)]"
        case .object(let fields):
            let lines = fields.sorted { $0.key < $1.key }
                .map { "\(inner)\(jsonString($0.key)): \($0.value.formatted(indent: indent + 2))" }
            return lines.isEmpty ? "{}" : "{\n" + lines.joined(separator: ",\n") + "\n\(outer)}"
        }
    }

    private var isPlain: Bool {
        switch self {
        case .array, .object: false
        default: true
        }
    }
}
