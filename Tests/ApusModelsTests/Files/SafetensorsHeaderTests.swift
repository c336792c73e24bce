import ApusTensor
import Testing

@testable import ApusModels

/// Every way a header can lie, and the words that must be in the answer.
@Suite struct SafetensorsHeaderTests {
    struct Lie: CustomTestStringConvertible, Sendable {
        let name: String
        let bytes: [UInt8]
        let says: String
        var testDescription: String { name }

        init(_ name: String, _ bytes: [UInt8], _ says: String) {
            self.name = name
            self.bytes = bytes
            self.says = says
        }

        /// A file of 8 data bytes whose header is `json`.
        init(_ name: String, _ json: String, _ says: String) { self.init(name, safetensors(json, data: 8), says) }

        /// The entry of one tensor 'a' that should be F32 [2].
        static func entry(_ name: String, _ fields: String, _ says: String) -> Lie {
            Lie(name, "{\"a\":{\(fields)}}", says)
        }

        /// The entry of one tensor 'a' with these three fields.
        static func claim(_ name: String, _ dtype: String, _ shape: String, _ offsets: String, _ says: String) -> Lie {
            entry(name, "\"dtype\":\"\(dtype)\",\"shape\":\(shape),\"data_offsets\":\(offsets)", says)
        }
    }

    static let good = "\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]"
    private static let half = "\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]"
    private static let tail = Array("\":{\(good)}}".utf8)
    private static let bomb = String(repeating: "[", count: 200_000)

    static let files: [Lie] = [
        Lie("empty file", [], "ends before the length of its header: has 0 bytes, needs 8"),
        Lie("seven bytes", [1, 2, 3, 4, 5, 6, 7], "has 7 bytes, needs 8"),
        Lie("length of all ones", safetensors("{}", data: 0, length: .max), "header length 18446744073709551615"),
        Lie("length Int.max", safetensors("{}", data: 0, length: UInt64(Int.max)), "is over 100000000 bytes"),
        Lie("length over the limit", safetensors("{}", data: 0, length: 100_000_001), "is over 100000000 bytes"),
        Lie("length past the end", safetensors("{}", data: 0, length: 3), "has 10 bytes, needs 11"),
        Lie("length 0", safetensors("", data: 8), "ends where an object"),
        Lie("length cuts the JSON", safetensors("{\(good)}", data: 8, length: 9), "byte 17"),
        Lie("truncated data", safetensors("{\"a\":{\(good)}}", data: 7), "ends at data byte 8, but the file holds 7"),
        Lie("bytes after the data", safetensors("{\"a\":{\(good)}}", data: 9), "1 bytes after the last tensor"),
        Lie("no tensors but data", "{}", "8 bytes after the last tensor"),
        Lie("a PyTorch zip", Array("PK\u{3}\u{4}abcdefghijkl".utf8), "is it a safetensors file?"),
    ]

    static let texts: [Lie] = [
        Lie("not an object", "[]", "expected an object"),
        Lie("text after the object", "{\"a\":{\(good)}} {}", "text after the end"),
        Lie("no closing brace", "{\"a\":{\(good)}", "ends where ',' or '}'"),
        Lie("missing comma", "{\"a\":{\(good)} \"b\":1}", "expected ',' or '}'"),
        Lie("trailing comma", "{\"a\":{\(good)},}", "expected a key"),
        Lie("missing colon", "{\"a\" {\(good)}}", "expected ':'"),
        Lie("unquoted key", "{a:{\(good)}}", "expected a key"),
        Lie("unfinished name", "{\"aaa", "does not end"),
        Lie("unfinished escape", "{\"a\\", "ends inside an escape"),
        Lie("unknown escape", "{\"\\x\":{\(good)}}", "unknown escape"),
        Lie("half a surrogate pair", "{\"\\ud800\":{\(good)}}", "surrogate"),
        Lie("surrogates swapped", "{\"\\ude00\\ud83d\":{\(good)}}", "surrogate"),
        Lie("bad hexadecimal", "{\"\\u12g4\":{\(good)}}", "four hexadecimal digits"),
        Lie("control character", "{\"a\nb\":{\(good)}}", "control character"),
        Lie("not UTF-8", safetensors(Array("{\"".utf8) + [0xFF, 0xFE] + tail, data: 8), "UTF-8"),
        Lie("overlong UTF-8", safetensors(Array("{\"".utf8) + [0xC0, 0xAF] + tail, data: 8), "UTF-8"),
        Lie("the same name twice", "{\"a\":{\(good)},\"a\":{\(good)}}", "'a' is there twice"),
        Lie("the same name escaped", "{\"a\":{\(good)},\"\\u0061\":{\(good)}}", "'a' is there twice"),
        Lie("metadata twice", "{\"__metadata__\":{},\"__metadata__\":{},\"a\":{\(good)}}", "twice"),
        Lie("metadata of numbers", "{\"__metadata__\":{\"k\":1},\"a\":{\(good)}}", "string as the value of 'k'"),
        Lie("metadata key twice", "{\"__metadata__\":{\"k\":\"1\",\"k\":\"2\"},\"a\":{\(good)}}", "'k' is there twice"),
        Lie("metadata is a list", "{\"__metadata__\":[],\"a\":{\(good)}}", "expected an object"),
        Lie("entry is a number", "{\"a\":8}", "expected an object"),
        Lie("bomb of brackets", "{\"a\":\(bomb)}", "expected an object"),
        Lie("bomb in a shape", "{\"a\":{\"shape\":\(bomb)}}", "expected a dimension"),
        Lie("bomb of objects", String(repeating: "{\"a\":", count: 100_000), "unknown key 'a'"),
    ]

    static let entries: [Lie] = [
        .entry("no dtype", "\"shape\":[2],\"data_offsets\":[0,8]", "has no 'dtype'"),
        .entry("no shape", "\"dtype\":\"F32\",\"data_offsets\":[0,8]", "has no 'shape'"),
        .entry("no offsets", "\"dtype\":\"F32\",\"shape\":[2]", "has no 'data_offsets'"),
        .entry("unknown key", good + ",\"stride\":[1]", "unknown key 'stride'"),
        .entry("dtype twice", good + ",\"dtype\":\"F32\"", "'dtype' is there twice"),
        .entry("shape twice", good + ",\"shape\":[2]", "'shape' is there twice"),
        .claim("unknown dtype", "Q4_K", "[2]", "[0,8]", "'Q4_K', Apus reads F32, BF16"),
        .claim("lower-case dtype", "f32", "[2]", "[0,8]", "has dtype 'f32'"),
        .entry("dtype is a number", "\"dtype\":32,\"shape\":[2],\"data_offsets\":[0,8]", "expected a string"),
        .claim("negative dimension", "F32", "[-2]", "[0,8]", "dimension is negative"),
        .claim("fraction", "F32", "[2.0]", "[0,8]", "not a whole number"),
        .claim("exponent", "F32", "[2e0]", "[0,8]", "not a whole number"),
        .claim("leading zero", "F32", "[02]", "[0,8]", "starts with 0"),
        .claim("dimension in quotes", "F32", "[\"2\"]", "[0,8]", "whole number"),
        .claim("null shape", "F32", "null", "[0,8]", "expected an array"),
        .entry("dimension over Int.max", "\"shape\":[9223372036854775808]", "is larger than 9223372036854775807"),
        .claim("product overflows", "F32", "[4294967296,4294967296]", "[0,8]", "overflow"),
        .claim("product wraps to 8", "U8", "[8,2305843009213693953]", "[0,8]", "overflow"),
        .claim("zero hides an overflow", "U8", "[4294967296,4294967296,0]", "[0,0]", "overflow"),
        .entry("65 dimensions", "\"shape\":[1\(String(repeating: ",1", count: 64))]", "more than 64 numbers"),
        .claim("negative offset", "F32", "[2]", "[-8,0]", "offset is negative"),
        .claim("offsets swapped", "F32", "[2]", "[8,0]", "begins at data byte 8, after"),
        .claim("offsets past the data", "F32", "[2]", "[8,16]", "ends at data byte 16"),
        .claim(
            "offset near Int.max", "F32", "[2]", "[9223372036854775799,9223372036854775807]", "ends at data byte 92"),
        .claim("one offset", "F32", "[2]", "[8]", "has 1 data offsets instead of 2"),
        .claim("three offsets", "F32", "[2]", "[0,8,8]", "more than 2 numbers"),
        .claim("too few bytes", "F32", "[3]", "[0,8]", "takes 8 bytes, but F32 of shape [3] needs 12"),
        .claim("half a byte", "F4", "[3]", "[0,1]", "not a whole number of bytes"),
        Lie("overlap", "{\"a\":{\(good)},\"b\":{\(half)}}", "'a' overlaps the tensor before it by 4 bytes"),
        Lie("hole at the start", "{\"a\":{\"dtype\":\"U8\",\"shape\":[7],\"data_offsets\":[1,8]}}", "hole of 1 bytes"),
        Lie(
            "hole in the middle",
            "{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[6,8]},\"b\":{\(half)}}", "'a' leaves a hole of 2"),
        Lie(
            "empty tensor inside another",
            "{\"a\":{\(good)},\"z\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[4,4]}}", "'z' overlaps"),
    ]

    @Test(arguments: files + texts + entries)
    func lieIsRefused(_ lie: Lie) throws {
        let error = try #require(headerError(lie.bytes), "accepted")
        #expect(error.description.contains(lie.says), "\(error)")
        #expect(error.description.hasPrefix("'f.safetensors'"), "\(error)")
        #expect(error.description.utf8.count < 2_000)
    }

    @Test(arguments: [
        "{\"a\":{\(good)}}", "{\"a\":{\(good)}}    ", " {\n\"a\" : {\t\(good) } }\r\n",
        "{\"__metadata__\":{\"format\":\"pt\"},\"a\":{\(good)}}",
        "{\"a\":{\"dtype\":\"F64\",\"shape\":[],\"data_offsets\":[0,8]}}",
        "{\"a\":{\"dtype\":\"F8_E4M3\",\"shape\":[2,4],\"data_offsets\":[0,8]}}",
        "{\"a\":{\"dtype\":\"F4\",\"shape\":[16],\"data_offsets\":[0,8]}}",
        "{\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]},\"z\":{\"dtype\":\"I32\",\"shape\":[0,3],"
            + "\"data_offsets\":[4,4]},\"a\":{\"dtype\":\"BOOL\",\"shape\":[4],\"data_offsets\":[0,4]}}",
    ])
    func truthIsAccepted(_ header: String) {
        #expect(headerError(safetensors(header, data: 8)) == nil)
    }

    @Test func emptyTableOfEmptyFileIsAccepted() { #expect(headerError(safetensors("{}", data: 0)) == nil) }
}
