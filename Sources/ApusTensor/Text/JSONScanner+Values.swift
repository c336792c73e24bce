extension JSONScanner {
    /// What a value begins as.
    package enum Kind: Sendable {
        case object
        case array
        case string
        case number
        case truth
        case null
    }

    /// What comes next; a value of that kind may still turn out wrong.
    package mutating func nextKind() throws(Fault) -> Kind {
        skipWhitespace()
        guard let byte = peek else { throw fault("ends where a value should be") }
        switch byte {
        case UInt8(ascii: "{"): return .object
        case UInt8(ascii: "["): return .array
        case UInt8(ascii: "\""): return .string
        case UInt8(ascii: "t"), UInt8(ascii: "f"): return .truth
        case UInt8(ascii: "n"): return .null
        case UInt8(ascii: "-"), UInt8(ascii: "0")...UInt8(ascii: "9"): return .number
        default: throw fault("expected a JSON value")
        }
    }

    /// `true` or `false`.
    package mutating func truth(_ wanted: String = "true or false") throws(Fault) -> Bool {
        guard try nextKind() == .truth else { throw fault("expected \(wanted), true or false") }
        let value = peek == UInt8(ascii: "t")
        try skipWord(value ? "true" : "false")
        return value
    }

    /// Steps over `null`, if that is what comes next.
    package mutating func skipNull() throws(Fault) -> Bool {
        guard try nextKind() == .null else { return false }
        try skipWord("null")
        return true
    }

    /// Any number, to the nearest `Double`.
    package mutating func number(_ wanted: String = "a number") throws(Fault) -> Double {
        guard try nextKind() == .number else { throw fault("expected \(wanted), a number") }
        let start = offset
        guard let value = Double(try numberText()) else { throw fault("\(wanted) is no number", at: start) }
        return value
    }

    /// The text of a number as it is written, of the form that JSON demands.
    package mutating func numberText() throws(Fault) -> String {
        skipWhitespace()
        let start = offset
        try skipNumber()
        return String(decoding: read(start), as: UTF8.self)
    }
}
