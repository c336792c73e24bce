import ApusTensor

extension InputBatch {
    /// The text of a piece, which is UTF-8: of a line of JSON its `text`, empty of a blank line.
    ///
    /// - Parameter files: what ``Piece/file`` counts.
    /// - Throws: ``DataError`` that names the file and the place.
    func text(of piece: Piece, in files: [InputFile]) throws(DataError) -> [UInt8] {
        let file = files[piece.file]
        guard file.isLines else {
            let text = Array(bytes[piece.range])
            try InputBatch.check(text, at: piece.place, of: file)
            return text
        }
        do throws(JSONScanner.Fault) {
            return try bytes.withUnsafeBufferPointer { bytes throws(JSONScanner.Fault) in
                try InputBatch.text(ofLine: UnsafeRawBufferPointer(UnsafeBufferPointer(rebasing: bytes[piece.range])))
            }
        } catch {
            throw .badLine(path: file.name, line: piece.place, reason: "column \(error.offset + 1): \(error.reason)")
        }
    }

    /// The `text` of one line of JSON; empty of a blank line.
    static func text(ofLine line: UnsafeRawBufferPointer) throws(JSONScanner.Fault) -> [UInt8] {
        if line.allSatisfy({ $0 == 0x20 || $0 == 0x09 || $0 == 0x0D }) { return [] }
        var scanner = JSONScanner(line)
        var text: String?
        var object = try scanner.beginObject()
        while let key = try scanner.nextKey(in: &object) {
            if key != "text" {
                try scanner.skipValue()
                continue
            }
            if text != nil { throw scanner.fault("has \"text\" twice") }
            text = try scanner.string("the text in double quotes")
        }
        try scanner.end()
        guard let text else { throw scanner.fault("has no \"text\"") }
        return Array(text.utf8)
    }

    /// Text is UTF-8 and has no NUL.
    private static func check(_ text: [UInt8], at place: Int, of file: InputFile) throws(DataError) {
        if let nul = text.firstIndex(of: 0) { throw .binary(path: file.name, offset: place + nul, byte: 0) }
        do throws(UTF8.ValidationError) {
            _ = try UTF8Span(validating: text.span)
        } catch {
            throw .notUTF8(path: file.name, offset: place + error.byteOffsets.lowerBound)
        }
    }
}
