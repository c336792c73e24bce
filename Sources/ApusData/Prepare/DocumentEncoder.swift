import ApusTensor
import Glibc

/// Tokens of consecutive pieces of a batch.
struct EncodedPieces {
    struct Piece {
        /// Where its tokens end.
        var end: Int
        /// Bytes of its text.
        var bytes: Int
        var file: Int
        /// The part of the document that begins with it.
        var part: CorpusPart?
        var endsDocument: Bool
    }

    var tokens: [Int32] = []
    var pieces: [Piece] = []
    /// What was wrong with the piece after these.
    var failure: (any Error)?
}

/// Turns pieces of text into tokens; used by several threads at once.
struct DocumentEncoder: Sendable {
    let files: [InputFile]
    let vocabulary: any Vocabulary
    let split: HeldOutSplit

    /// Encodes `pieces`, up to the first that is no text.
    func encode(_ pieces: ArraySlice<InputBatch.Piece>, of bytes: [UInt8]) -> EncodedPieces {
        var result = EncodedPieces()
        do {
            for piece in pieces { try encode(piece, bytes, into: &result) }
        } catch {
            result.failure = error
        }
        return result
    }

    private func encode(_ piece: InputBatch.Piece, _ bytes: [UInt8], into result: inout EncodedPieces) throws {
        let file = files[piece.file]
        let text = file.isLines ? try line(piece, bytes) : Array(bytes[piece.range])
        if !file.isLines { try checkText(text, piece, file) }
        if text.isEmpty { return }
        result.tokens.append(contentsOf: vocabulary.encode(text))
        if piece.endsDocument, let end = vocabulary.endOfDocument { result.tokens.append(end) }
        result.pieces.append(
            EncodedPieces.Piece(
                end: result.tokens.count, bytes: text.count, file: piece.file,
                part: piece.beginsDocument ? split.part(ofDocument: text) : nil, endsDocument: piece.endsDocument))
    }

    /// The text of a line of JSON; empty of a blank line.
    private func line(_ piece: InputBatch.Piece, _ bytes: [UInt8]) throws(DataError) -> [UInt8] {
        do throws(JSONScanner.Fault) {
            return try bytes.withUnsafeBufferPointer { bytes throws(JSONScanner.Fault) in
                let line = UnsafeBufferPointer(rebasing: bytes[piece.range])
                return try DocumentEncoder.text(ofLine: UnsafeRawBufferPointer(line))
            }
        } catch {
            throw .badLine(
                path: files[piece.file].name, line: piece.place, reason: "column \(error.offset + 1): \(error.reason)")
        }
    }

    private static func text(ofLine line: UnsafeRawBufferPointer) throws(JSONScanner.Fault) -> [UInt8] {
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
    private func checkText(_ text: [UInt8], _ piece: InputBatch.Piece, _ file: InputFile) throws(DataError) {
        if let nul = text.firstIndex(of: 0) {
            throw .binary(path: file.name, offset: piece.place + nul, byte: 0)
        }
        do throws(UTF8.ValidationError) {
            _ = try UTF8Span(validating: text.span)
        } catch {
            throw .notUTF8(path: file.name, offset: piece.place + error.byteOffsets.lowerBound)
        }
    }
}

/// Which documents are held out: a function of the fraction and the document's content alone, so that neither order
/// nor company of a document matters, and copies of one are on the same side.
struct HeldOutSplit: Sendable {
    /// The share of documents, of at least 0 and below 1.
    let fraction: Double

    /// Bytes at the beginning of a document that decide; longer ones are streamed.
    static let keyBytes = 64 << 10

    /// The part of a document that begins with `text`, which is the whole document or at least ``keyBytes`` of it.
    func part(ofDocument text: [UInt8]) -> CorpusPart {
        let hash = text.prefix(Self.keyBytes).withUnsafeBytes { XXH64.checksum($0) }
        return Double(hash >> 11) * 0x1p-53 < fraction ? .heldOut : .training
    }
}
