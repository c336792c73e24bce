import ApusTensor
import Glibc

extension JSONValue {
    /// The value that `text` is.
    ///
    /// - Throws: `malformed`, with `path` as the place.
    init(parsing text: String, path: String) throws(ModelConfigurationError) {
        // One buffer for the scanner to read, whatever form the string is held in.
        let parsed = Array(text.utf8).withUnsafeBytes { bytes -> Result<JSONValue, JSONScanner.Fault> in
            Result { () throws(JSONScanner.Fault) in
                var scanner = JSONScanner(bytes)
                let value = try scanner.value()
                try scanner.end()
                return value
            }
        }
        switch parsed {
        case .success(let value): self = value
        case .failure(let fault):
            throw .malformed(path: path, reason: "is not JSON (byte \(fault.offset): \(fault.reason))")
        }
    }
}

extension JSONScanner {
    /// The next value, whatever it is; a repeated key is a fault.
    mutating func value() throws(Fault) -> JSONValue {
        switch try nextKind() {
        case .object:
            var fields: [String: JSONValue] = [:]
            var object = try beginObject()
            while let key = try nextKey(in: &object) {
                if fields.updateValue(try value(), forKey: key) != nil {
                    throw fault("the key \(quoted(key)) is there twice")
                }
            }
            return .object(fields)
        case .array:
            var elements: [JSONValue] = []
            var array = try beginArray()
            while try nextElement(in: &array) { elements.append(try value()) }
            return .array(elements)
        case .string: return .string(try string())
        case .truth: return .bool(try truth())
        case .null:
            _ = try skipNull()
            return .null
        case .number:
            let start = offset
            let text = try numberText()
            // Digits alone are a whole number, exact as long as 64 bits hold it.
            if let integer = Int(text) { return .integer(integer) }
            let number = strtod(text, nil)
            guard number.isFinite else { throw fault("the number \(text) is too large", at: start) }
            return .number(number)
        }
    }
}
