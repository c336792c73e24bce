import ApusModels
import ApusTensor

/// A value for `--json`: keys stay in the order they are given in.
enum JSONText: CustomStringConvertible {
    case integer(Int)
    case number(Double)
    case string(String)
    case bool(Bool)
    case null
    case array([JSONText])
    case object([(String, JSONText)])

    /// A whole number that was read as one with a fraction, and may be too large for an integer.
    static func count(_ value: Double) -> JSONText {
        Int(exactly: value.rounded()).map { .integer($0) } ?? .number(value)
    }

    /// The value, or null for `nil`.
    static func optional<Value>(_ value: Value?, _ form: (Value) -> JSONText) -> JSONText { value.map(form) ?? .null }

    /// One line of JSON.
    ///
    /// Numbers that JSON has no form for are strings.
    var description: String {
        switch self {
        case .integer(let value): "\(value)"
        case .number(let value): value.isFinite ? "\(value)" : "\"\(value)\""
        case .string(let text): jsonString(text)
        case .bool(let value): "\(value)"
        case .null: "null"
        case .array(let values): "[" + values.map(\.description).joined(separator: ", ") + "]"
        case .object(let fields):
            "{" + fields.map { "\(jsonString($0.0)): \($0.1)" }.joined(separator: ", ") + "}"
        }
    }
}
