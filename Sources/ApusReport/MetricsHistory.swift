import ApusTensor
import Glibc

/// The steps of a run as `metrics.jsonl` tells them, read from the file when they are asked for.
///
/// A line that returns to an earlier step takes the place of that step and of all that came after it: a resumed run
/// takes them again. A last line that was cut short by a kill is left out.
struct MetricsHistory {
    /// The steps that count, ascending.
    let steps: [Int]
    private let path: String
    private let file: MappedFile
    private let lines: [Line]

    private struct Line {
        let step: Int
        let number: Int
        let bytes: Range<Int>
    }

    /// Finds the lines of `path` that count.
    ///
    /// - Throws: ``ReportError``, ``FileError``.
    init(path: String) throws {
        self.path = path
        file = try MappedFile(path: path)
        let found = try file.withUnsafeBytes { try MetricsHistory.lines(of: $0, path: path) }
        var kept: [Line] = []
        kept.reserveCapacity(found.count)
        for line in found.reversed() where line.step < kept.last?.step ?? .max { kept.append(line) }
        guard !kept.isEmpty else { throw ReportError.empty(path: path) }
        lines = kept.reversed()
        steps = lines.map(\.step)
    }

    /// Calls `body` with each line that counts and its place among them.
    ///
    /// - Throws: ``ReportError/badLine(path:line:reason:)``
    func read(_ body: (Int, MetricsLine) -> Void) throws {
        try file.withUnsafeBytes { all in
            for (place, line) in lines.enumerated() {
                do throws(JSONScanner.Fault) {
                    body(place, try MetricsLine(UnsafeRawBufferPointer(rebasing: all[line.bytes])))
                } catch {
                    throw ReportError.badLine(path: path, line: line.number, reason: error.reason)
                }
            }
        }
    }

    private static func newline(in all: UnsafeRawBufferPointer, from start: Int) -> Int? {
        guard let base = all.baseAddress, let found = memchr(base + start, 0x0A, all.count - start) else { return nil }
        return UnsafeRawPointer(found) - base
    }

    private static func lines(of all: UnsafeRawBufferPointer, path: String) throws -> [Line] {
        var lines: [Line] = []
        var number = 0
        var start = 0
        while start < all.count {
            let end = newline(in: all, from: start)
            let bytes = start..<(end ?? all.count)
            start = bytes.upperBound + 1
            number += 1
            guard !bytes.isEmpty else { continue }
            let text = UnsafeRawBufferPointer(rebasing: all[bytes])
            do throws(JSONScanner.Fault) {
                // Without a newline it may have been cut short anywhere, so all of it is looked at.
                if end == nil { _ = try MetricsLine(text) }
                lines.append(Line(step: try MetricsLine.step(of: text), number: number, bytes: bytes))
            } catch {
                if end != nil { throw ReportError.badLine(path: path, line: number, reason: error.reason) }
            }
        }
        return lines
    }
}
