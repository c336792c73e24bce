import ApusTensor
import Glibc

/// `metrics.jsonl` of a run: a line for each step, written when the step is done.
///
/// A run that resumes at step n keeps the lines up to n and drops later ones, whose steps are taken again.
public final class MetricsFile {
    /// Where it is.
    public let path: String
    private let file: UnsafeMutablePointer<FILE>

    /// Opens the file for steps after `step`.
    ///
    /// - Throws: ``MetricsFileError``
    public init(path: String, afterStep step: Int) throws {
        self.path = path
        if access(path, F_OK) == 0 {
            let kept = try MetricsFile.lines(of: path).filter { MetricsFile.step(of: $0).map { $0 <= step } ?? false }
            _ = try AtomicFile.write(kept.map { $0 + "\n" }.joined(), to: path)
        }
        guard let file = fopen(path, "a") else { throw MetricsFileError(path: path, code: errno) }
        self.file = file
    }

    deinit { fclose(file) }

    /// Appends a line and hands it to the system, so that a kill does not lose it.
    ///
    /// - Throws: ``MetricsFileError``, for a full disk among others.
    public func append(_ metrics: StepMetrics) throws {
        guard fputs(metrics.json + "\n", file) >= 0, fflush(file) == 0 else {
            throw MetricsFileError(path: path, code: errno)
        }
    }

    private static func lines(of path: String) throws -> [Substring] {
        let text = try FileContents(path: path, atMost: .max).text
        return text.split(separator: "\n")
    }

    /// The step that a line is of; `nil` for a line cut short by a kill.
    private static func step(of line: Substring) -> Int? {
        guard line.hasSuffix("}"), line.hasPrefix("{\"step\": ") else { return nil }
        return Int(line.dropFirst(9).prefix { $0.isNumber })
    }
}

/// The metrics file could not be opened or written.
public struct MetricsFileError: Error, Sendable, CustomStringConvertible {
    /// The file.
    public let path: String
    /// The system's error number.
    public let code: Int32

    /// What was wrong and what would work.
    public var description: String {
        "'\(path)' cannot be written: \(String(cString: strerror(code))). Free space or choose another --out"
    }
}
