import ApusTensor
import Glibc

/// Text of one or more documents that is worked on at once.
struct InputBatch {
    /// A document, or a part of a long one.
    struct Piece {
        /// Bytes of the batch.
        var range: Range<Int>
        /// Index of the file it is from.
        var file: Int
        /// For messages: where it begins in the file, or for JSONL its line, from 1.
        var place: Int
        var beginsDocument: Bool
        var endsDocument: Bool
    }

    var bytes: [UInt8] = []
    var pieces: [Piece] = []
    /// Files that were opened for this batch.
    var opened: [Int] = []
}

/// Reads files one after the other and hands out their documents in batches, in constant memory.
///
/// A long text is cut into pieces: behind a single line end between visible characters, where the pre-tokenisers
/// of GPT-2, GPT-NeoX, Llama 3 and Qwen cut as well, so that the pieces' tokens are those of the whole. In a text without
/// such a place a piece ends with any character.
final class DocumentReader {
    /// Most bytes of one piece of text.
    static let pieceBytes = 256 << 10
    /// A batch is full with this many bytes, or this many pieces.
    static let batchBytes = 2 << 20
    private static let batchPieces = 1 << 15
    /// Longest line of a JSONL file, in bytes.
    static let longestLine = 64 << 20
    private static let readBytes = 256 << 10

    private let files: [InputFile]
    private var next = 0
    private var reader: (any ByteReader)?
    /// What was read and not handed out: bytes from `start` on.
    private var pending: [UInt8] = []
    private var start = 0
    private var isAtEnd = false
    /// Bytes, or lines, handed out of the file that is open.
    private var place = 0
    private var isInsideDocument = false

    init(_ files: [InputFile]) { self.files = files }

    /// The next batch; `nil` at the end of the last file.
    ///
    /// - Throws: ``DataError``
    func batch() throws -> InputBatch? {
        var batch = InputBatch()
        batch.bytes.reserveCapacity(Self.batchBytes + Self.pieceBytes)
        while batch.bytes.count < Self.batchBytes, batch.pieces.count < Self.batchPieces {
            if reader == nil {
                guard next < files.count else { break }
                try open(&batch)
            }
            try files[next].isLines ? takeLines(into: &batch) : takeText(into: &batch)
        }
        return batch.pieces.isEmpty && batch.opened.isEmpty ? nil : batch
    }

    private func open(_ batch: inout InputBatch) throws {
        reader = try files[next].reader()
        batch.opened.append(next)
        pending.removeAll(keepingCapacity: true)
        (start, place, isAtEnd, isInsideDocument) = (0, 0, false, false)
        try fill(3)
        // A byte order mark is no part of the text.
        if pending.starts(with: [0xEF, 0xBB, 0xBF]) { start = 3 }
        if files[next].isGuessed, !files[next].isLines { try refuseLines() }
    }

    /// Most bytes of a first line that is looked at.
    private static let firstLine = 64 << 10

    /// - Throws: ``DataError/looksLikeLines(path:)`` for text of which the first line is an object with `text`.
    private func refuseLines() throws {
        guard pending.count > start, pending[start] == UInt8(ascii: "{") else { return }
        try fill(Self.firstLine)
        let line = pending[start...].prefix { $0 != UInt8(ascii: "\n") }
        let text = line.withUnsafeBytes { try? InputBatch.text(ofLine: $0) }
        if text != nil { throw DataError.looksLikeLines(path: files[next].name) }
    }

    private func close() {
        reader = nil
        next += 1
    }

    /// Reads until `wanted` bytes are pending, or the file has ended.
    private func fill(_ wanted: Int) throws {
        guard pending.count - start < wanted, !isAtEnd, let reader else { return }
        if start > 0 {
            pending.removeFirst(start)
            start = 0
        }
        while pending.count < wanted, !isAtEnd {
            let used = pending.count
            pending.append(contentsOf: repeatElement(0, count: Self.readBytes))
            let count = try pending.withUnsafeMutableBytes {
                try reader.read(into: UnsafeMutableRawBufferPointer(rebasing: $0[used...]))
            }
            pending.removeLast(Self.readBytes - count)
            isAtEnd = count == 0
        }
    }

    private func take(_ count: Int, into batch: inout InputBatch) -> Range<Int> {
        let first = batch.bytes.count
        batch.bytes.append(contentsOf: pending[start..<start + count])
        start += count
        return first..<first + count
    }

    // MARK: Text

    private func takeText(into batch: inout InputBatch) throws {
        try fill(Self.pieceBytes + 4)
        let rest = pending.count - start
        if rest == 0 { return close() }
        let isLast = isAtEnd && rest <= Self.pieceBytes
        let count = isLast ? rest : cut()
        let range = take(count, into: &batch)
        batch.pieces.append(
            InputBatch.Piece(
                range: range, file: next, place: place, beginsDocument: !isInsideDocument, endsDocument: isLast))
        place += count
        isInsideDocument = !isLast
        if isLast { close() }
    }

    /// Bytes of the piece that is cut off `pending`, which has more.
    private func cut() -> Int {
        let text = pending[start...]
        let limit = text.startIndex + Self.pieceBytes
        for end in stride(from: limit, to: limit - Self.pieceBytes / 2, by: -1)
        where text[end - 1] == UInt8(ascii: "\n") && isVisible(text[(end - 5)..<(end - 1)], last: true)
            && isVisible(text[end..<end + 4], last: false)
        {
            return end - text.startIndex
        }
        // A byte that is not 10xxxxxx begins a character; one has at most four.
        let end = (limit - 3...limit).last { text[$0] & 0xC0 != 0x80 } ?? limit
        return end - text.startIndex
    }

    /// Whether the first or last character of `bytes` is no white space. Other characters may be cut.
    private func isVisible(_ bytes: ArraySlice<UInt8>, last: Bool) -> Bool {
        let scalars = String(decoding: bytes, as: UTF8.self).unicodeScalars
        return (last ? scalars.last : scalars.first).map { !$0.properties.isWhitespace } ?? false
    }

    // MARK: Lines

    private func takeLines(into batch: inout InputBatch) throws {
        while batch.bytes.count < Self.batchBytes, batch.pieces.count < Self.batchPieces {
            guard let length = try lineLength() else { return close() }
            place += 1
            if length > 0 {
                let range = take(length, into: &batch)
                batch.pieces.append(
                    InputBatch.Piece(range: range, file: next, place: place, beginsDocument: true, endsDocument: true))
            }
            // The line end; the last line may have none.
            start = min(start + 1, pending.count)
        }
    }

    /// Bytes of the next line without its end; `nil` when there is none.
    private func lineLength() throws -> Int? {
        var searched = 0
        while true {
            let found = pending[(start + searched)...].withUnsafeBytes { bytes -> Int? in
                guard let base = bytes.baseAddress, let at = memchr(base, Int32(UInt8(ascii: "\n")), bytes.count) else {
                    return nil
                }
                return UnsafeRawPointer(at) - base
            }
            if let found { return searched + found }
            let rest = pending.count - start
            if isAtEnd { return rest > 0 ? rest : nil }
            guard rest <= Self.longestLine else {
                throw DataError.badLine(
                    path: files[next].name, line: place + 1, reason: "is longer than \(Self.longestLine) bytes")
            }
            searched = rest
            try fill(rest + 1)
        }
    }
}
