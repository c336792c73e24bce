import ApusTensor
import Testing

@testable import ApusModels

@Suite struct `JSON values` {
    private func parse(_ text: String) throws -> JSONValue { try JSONValue(parsing: text, path: "config.json") }

    @Test func `keep whole numbers, other numbers and truth values apart`() throws {
        let value = try parse(
            #"{"a": 1, "b": 1.0, "c": true, "d": null, "e": [-3, 2e3, "x\u00e9\n"], "f": {"g": false}}"#)
        #expect(
            value
                == .object([
                    "a": .integer(1), "b": .number(1), "c": .bool(true), "d": .null,
                    "e": .array([.integer(-3), .number(2000), .string("x\u{e9}\n")]), "f": .object(["g": .bool(false)]),
                ]))
        #expect(try parse(" 7\n") == .integer(7))
    }

    @Test func `read numbers exactly`() throws {
        #expect(try parse("9223372036854775807") == .integer(.max))
        #expect(try parse("-9223372036854775808") == .integer(.min))
        #expect(try parse("9007199254740993") == .integer(9_007_199_254_740_993))
        #expect(try parse("9223372036854775808") == .number(9_223_372_036_854_775_808))
        #expect(try parse("0.1") == .number(0.1))
        #expect(try parse("1.7976931348623157e308") == .number(Double.greatestFiniteMagnitude))
        #expect(try parse("5e-324") == .number(Double.leastNonzeroMagnitude))
    }

    @Test(arguments: [
        ("{\"a\": 1, \"a\": 1}", "the key 'a' is there twice"), ("{\"a\": 1", "ends where"), ("{\"a\" 1}", "':'"),
        ("[1, 2,]", "expected a JSON value"), ("01", "starts with 0"), ("1e400", "too large"), ("NaN", "a JSON value"),
        ("nul", "expected 'null'"), ("{} {}", "text after the end"), ("", "ends where a value should be"),
        ("\"a\tb\"", "control character"),
        (String(repeating: "[", count: 33), "nested deeper than 32 levels"),
    ])
    func `refuse what is not JSON, with the file and the place`(text: String, reason: String) throws {
        let error = #expect(throws: ModelConfigurationError.self) { try parse(text) }
        guard case .malformed("config.json", let found) = error else {
            Issue.record("\(String(describing: error))")
            return
        }
        #expect(found.hasPrefix("is not JSON (byte "))
        #expect(found.contains(reason))
    }

    @Test func `take the depth that they refuse to pass`() throws {
        let depth = JSONScanner.maximumDepth
        let text = String(repeating: "[", count: depth) + String(repeating: "]", count: depth)
        #expect(throws: Never.self) { try parse(text) }
    }
}
