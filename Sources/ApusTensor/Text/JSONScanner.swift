/// A strict reader of JSON that the caller pulls values from, so that nothing is built but what the caller keeps.
///
/// A general decoder would build a tree many times the size of the text, and quietly take the last of two equal keys.
/// Here the caller says what it expects next; depth is bounded, numbers are exact, text must be valid UTF-8.
///
/// Format: RFC 8259.
package struct JSONScanner {
    /// What is wrong and at which byte.
    package struct Fault: Error {
        /// Byte of the text.
        package let offset: Int
        /// What is wrong there.
        package let reason: String
    }

    /// Position inside an object or array: whether its first element is still to come.
    package struct Container {
        fileprivate var isFirst = true
    }

    /// Objects and arrays may stand in each other this deep.
    package static let maximumDepth = 32

    private let bytes: UnsafeRawBufferPointer
    /// The next byte to read.
    package private(set) var offset: Int
    private var depth = 0

    /// - Parameter start: offset of the first byte to read; faults count from the buffer's own start.
    package init(_ bytes: UnsafeRawBufferPointer, from start: Int = 0) {
        self.bytes = bytes
        offset = start
    }

    /// A fault at `position`, by default where the scanner is.
    package func fault(_ reason: String, at position: Int? = nil) -> Fault {
        Fault(offset: position ?? offset, reason: reason)
    }

    // MARK: Structure

    /// Steps into an object.
    package mutating func beginObject() throws(Fault) -> Container { try begin(UInt8(ascii: "{"), "an object ('{')") }

    /// Steps into an array.
    package mutating func beginArray() throws(Fault) -> Container { try begin(UInt8(ascii: "["), "an array ('[')") }

    /// The next key, or nil after the object's end.
    package mutating func nextKey(in object: inout Container) throws(Fault) -> String? {
        guard try advance(&object, closing: UInt8(ascii: "}")) else { return nil }
        let key = try string("a key in double quotes")
        try expect(UInt8(ascii: ":"), "':' after the key")
        return key
    }

    /// Whether the object has another key, which takes the place of what `key` holds, as UTF-8.
    package mutating func nextKey(in object: inout Container, into key: inout [UInt8]) throws(Fault) -> Bool {
        key.removeAll(keepingCapacity: true)
        guard try advance(&object, closing: UInt8(ascii: "}")) else { return false }
        try appendString(to: &key, "a key in double quotes")
        try expect(UInt8(ascii: ":"), "':' after the key")
        return true
    }

    /// Whether the array has another element.
    package mutating func nextElement(in array: inout Container) throws(Fault) -> Bool {
        try advance(&array, closing: UInt8(ascii: "]"))
    }

    /// Fails unless only white space is left.
    package mutating func end() throws(Fault) {
        skipWhitespace()
        if offset < bytes.count { throw fault("text after the end of the JSON value") }
    }

    // MARK: Values

    /// A string's text, escapes resolved.
    package mutating func string(_ wanted: String = "a string in double quotes") throws(Fault) -> String {
        let (start, _) = try scanString(wanted)
        if bytes[offset] == UInt8(ascii: "\\") { return try escapedString(from: start) }
        offset += 1
        return try text(UnsafeRawBufferPointer(rebasing: bytes[start..<(offset - 1)]), at: start)
    }

    /// Appends a string's text to `target` as UTF-8, escapes resolved: cheaper than a `String` where there are many.
    package mutating func appendString(to target: inout [UInt8], _ wanted: String) throws(Fault) {
        let (start, isASCII) = try scanString(wanted)
        if bytes[offset] == UInt8(ascii: "\\") {
            target.append(contentsOf: try escapedString(from: start).utf8)
            return
        }
        offset += 1
        let part = UnsafeRawBufferPointer(rebasing: bytes[start..<(offset - 1)])
        if !isASCII { _ = try text(part, at: start) }
        target.append(contentsOf: part)
    }

    /// Steps into a string and to its first escape, or its end.
    ///
    /// - Returns: where its text begins, and whether what was stepped over is ASCII alone.
    private mutating func scanString(_ wanted: String) throws(Fault) -> (start: Int, isASCII: Bool) {
        try expect(UInt8(ascii: "\""), wanted)
        let start = offset
        var high: UInt8 = 0
        while offset < bytes.count, bytes[offset] != UInt8(ascii: "\""), bytes[offset] != UInt8(ascii: "\\") {
            try refuseControlCharacter()
            high |= bytes[offset]
            offset += 1
        }
        guard offset < bytes.count else { throw fault("the string that starts here does not end", at: start) }
        return (start, high < 0x80)
    }

    /// A whole number from 0 to `Int.max`, written with digits alone.
    package mutating func wholeNumber(_ wanted: String) throws(Fault) -> Int {
        skipWhitespace()
        let start = offset
        if peek == UInt8(ascii: "-") { throw fault("\(wanted) is negative") }
        var value = 0
        while let digit = peek.flatMap(decimalDigit) {
            let (scaled, overflow) = value.multipliedReportingOverflow(by: 10)
            let (sum, carry) = scaled.addingReportingOverflow(digit)
            if overflow || carry { throw fault("\(wanted) is larger than \(Int.max)", at: start) }
            value = sum
            offset += 1
        }
        if offset == start { throw fault("expected \(wanted), a whole number") }
        if offset - start > 1, bytes[start] == UInt8(ascii: "0") { throw fault("a number starts with 0", at: start) }
        if let next = peek, next == UInt8(ascii: ".") || next | 0x20 == UInt8(ascii: "e") {
            throw fault("\(wanted) is not a whole number", at: start)
        }
        return value
    }

    /// Steps over any value, checking its form.
    package mutating func skipValue() throws(Fault) {
        skipWhitespace()
        switch peek {
        case UInt8(ascii: "{"):
            var object = try beginObject()
            while try nextKey(in: &object) != nil { try skipValue() }
        case UInt8(ascii: "["):
            var array = try beginArray()
            while try nextElement(in: &array) { try skipValue() }
        case UInt8(ascii: "\""): _ = try string()
        case UInt8(ascii: "t"): try skipWord("true")
        case UInt8(ascii: "f"): try skipWord("false")
        case UInt8(ascii: "n"): try skipWord("null")
        default: try skipNumber()
        }
    }

    // MARK: Parts

    var peek: UInt8? { offset < bytes.count ? bytes[offset] : nil }

    mutating func skipWhitespace() {
        while let byte = peek, byte == 0x20 || byte == 0x0A || byte == 0x0D || byte == 0x09 { offset += 1 }
    }

    private mutating func expect(_ byte: UInt8, _ wanted: @autoclosure () -> String) throws(Fault) {
        skipWhitespace()
        guard peek == byte else {
            throw fault(peek == nil ? "ends where \(wanted()) should be" : "expected \(wanted())")
        }
        offset += 1
    }

    private mutating func begin(_ byte: UInt8, _ wanted: String) throws(Fault) -> Container {
        try expect(byte, wanted)
        depth += 1
        if depth > Self.maximumDepth { throw fault("nested deeper than \(Self.maximumDepth) levels") }
        return Container()
    }

    private mutating func advance(_ container: inout Container, closing: UInt8) throws(Fault) -> Bool {
        skipWhitespace()
        if peek == closing {
            offset += 1
            depth -= 1
            return false
        }
        if !container.isFirst {
            try expect(UInt8(ascii: ","), "',' or '\(Character(UnicodeScalar(closing)))'")
        }
        container.isFirst = false
        return true
    }

    private func refuseControlCharacter() throws(Fault) {
        if bytes[offset] < 0x20 { throw fault("a control character inside a string") }
    }

    private func text(_ utf8: some Sequence<UInt8>, at start: Int) throws(Fault) -> String {
        guard let text = String(validating: utf8, as: UTF8.self) else {
            throw fault("a string that is not valid UTF-8", at: start)
        }
        return text
    }

    private mutating func escapedString(from start: Int) throws(Fault) -> String {
        var utf8 = Array(bytes[start..<offset])
        while let byte = peek, byte != UInt8(ascii: "\"") {
            try refuseControlCharacter()
            offset += 1
            if byte != UInt8(ascii: "\\") { utf8.append(byte) } else { try appendEscape(to: &utf8) }
        }
        guard peek != nil else { throw fault("the string that starts here does not end", at: start) }
        offset += 1
        return try text(utf8, at: start)
    }

    private mutating func appendEscape(to utf8: inout [UInt8]) throws(Fault) {
        guard let byte = peek else { throw fault("ends inside an escape") }
        offset += 1
        switch byte {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): utf8.append(byte)
        case UInt8(ascii: "b"): utf8.append(0x08)
        case UInt8(ascii: "f"): utf8.append(0x0C)
        case UInt8(ascii: "n"): utf8.append(0x0A)
        case UInt8(ascii: "r"): utf8.append(0x0D)
        case UInt8(ascii: "t"): utf8.append(0x09)
        case UInt8(ascii: "u"): utf8.append(contentsOf: Array(String(try escapedScalar()).utf8))
        default: throw fault("unknown escape", at: offset - 1)
        }
    }

    private mutating func escapedScalar() throws(Fault) -> Unicode.Scalar {
        let start = offset
        var code = try fourHexDigits()
        if code & 0xFC00 == 0xD800, peek == UInt8(ascii: "\\") {
            offset += 1
            guard peek == UInt8(ascii: "u") else { throw fault("half of a surrogate pair", at: start) }
            offset += 1
            let low = try fourHexDigits()
            guard low & 0xFC00 == 0xDC00 else { throw fault("half of a surrogate pair", at: start) }
            code = 0x10000 + (code & 0x3FF) << 10 + (low & 0x3FF)
        }
        guard let scalar = Unicode.Scalar(code) else { throw fault("half of a surrogate pair", at: start) }
        return scalar
    }

    private mutating func fourHexDigits() throws(Fault) -> UInt32 {
        var code: UInt32 = 0
        for _ in 0..<4 {
            guard let digit = peek.flatMap({ Character(UnicodeScalar($0)).hexDigitValue }) else {
                throw fault("expected four hexadecimal digits")
            }
            code = code << 4 | UInt32(digit)
            offset += 1
        }
        return code
    }

    mutating func skipWord(_ word: String) throws(Fault) {
        for byte in word.utf8 {
            guard peek == byte else { throw fault("expected '\(word)'") }
            offset += 1
        }
    }

    /// The bytes from `start` to where the scanner is.
    func read(_ start: Int) -> UnsafeRawBufferPointer { UnsafeRawBufferPointer(rebasing: bytes[start..<offset]) }

    mutating func skipNumber() throws(Fault) {
        let start = offset
        if peek == UInt8(ascii: "-") { offset += 1 }
        let leading = peek
        let whole = skipDigits()
        if whole == 0 { throw fault("expected a JSON value", at: start) }
        if whole > 1, leading == UInt8(ascii: "0") { throw fault("a number starts with 0", at: start) }
        if peek == UInt8(ascii: ".") {
            offset += 1
            if skipDigits() == 0 { throw fault("expected a digit after '.'") }
        }
        if let byte = peek, byte | 0x20 == UInt8(ascii: "e") {
            offset += 1
            if let sign = peek, sign == UInt8(ascii: "+") || sign == UInt8(ascii: "-") { offset += 1 }
            if skipDigits() == 0 { throw fault("expected a digit in the exponent") }
        }
    }

    private mutating func skipDigits() -> Int {
        let start = offset
        while peek.flatMap(decimalDigit) != nil { offset += 1 }
        return offset - start
    }
}

private func decimalDigit(_ byte: UInt8) -> Int? {
    byte >= UInt8(ascii: "0") && byte <= UInt8(ascii: "9") ? Int(byte - UInt8(ascii: "0")) : nil
}
