/// The documents of files in blocks that may be cut into words one by one.
///
/// A block is runs of text of some megabytes together. A run is a document or ends behind a line break between two
/// visible ASCII characters, which no pattern's word reaches over; where no such break comes, a run grows until the
/// document ends.
struct TextBlocks {
    /// A block has at least this many bytes.
    static let blockBytes = 1 << 22

    private let files: [InputFile]
    private let reader: DocumentReader
    /// Of a document that has not ended, what was read and not yet given out.
    private var rest: [UInt8] = []

    /// The documents of `inputs`, in order: whatever ``Preparation`` reads.
    ///
    /// - Throws: ``DataError`` for names that lead to no file.
    init(_ inputs: [String], format: InputFormat) throws {
        files = try InputFile.list(inputs, format: format)
        reader = DocumentReader(files)
    }

    /// The runs of the next block; nil at the end.
    ///
    /// - Throws: ``DataError`` for what is no text.
    mutating func next() throws -> [[UInt8]]? {
        var runs: [[UInt8]] = []
        var bytes = 0
        while bytes < TextBlocks.blockBytes, let batch = try reader.batch() {
            for piece in batch.pieces {
                let text = try batch.text(of: piece, in: files)
                bytes += text.count
                if let run = add(text, endsDocument: piece.endsDocument) { runs.append(run) }
            }
        }
        return bytes == 0 && runs.isEmpty ? nil : runs
    }

    /// Goes on with a document.
    ///
    /// - Returns: the run that is complete now, if one is.
    private mutating func add(_ text: [UInt8], endsDocument: Bool) -> [UInt8]? {
        if endsDocument, rest.isEmpty { return text }
        let searched = max(1, rest.count - 1)
        rest += text
        guard let cut = endsDocument ? rest.count : TextBlocks.lastCut(rest, from: searched) else { return nil }
        let run = Array(rest[..<cut])
        rest.removeSubrange(..<cut)
        return run
    }

    /// Behind the last line break of `text`, not before `start`, that may be a run's end.
    private static func lastCut(_ text: [UInt8], from start: Int) -> Int? {
        let visible: ClosedRange<UInt8> = 0x21...0x7E
        var place = text.count - 2
        while place >= start {
            if text[place] == 0x0A, visible.contains(text[place - 1]), visible.contains(text[place + 1]) {
                return place + 1
            }
            place -= 1
        }
        return nil
    }
}
