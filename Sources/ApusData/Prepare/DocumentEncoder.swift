import ApusTensor

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
            let batch = InputBatch(bytes: bytes)
            for piece in pieces { try encode(piece, of: batch, into: &result) }
        } catch {
            result.failure = error
        }
        return result
    }

    private func encode(_ piece: InputBatch.Piece, of batch: InputBatch, into result: inout EncodedPieces) throws {
        let text = try batch.text(of: piece, in: files)
        if text.isEmpty { return }
        result.tokens.append(contentsOf: vocabulary.encode(text))
        if piece.endsDocument, let end = vocabulary.endOfDocument { result.tokens.append(end) }
        result.pieces.append(
            EncodedPieces.Piece(
                end: result.tokens.count, bytes: text.count, file: piece.file,
                part: piece.beginsDocument ? split.part(ofDocument: text) : nil, endsDocument: piece.endsDocument))
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
