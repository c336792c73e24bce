/// A run that cannot be reported on.
public enum ReportError: Error, Sendable, Equatable {
    /// The path leads to no run.
    case noRun(path: String)
    /// The run has taken no step yet.
    case empty(path: String)
    /// A line of the metrics is not what a run writes.
    case badLine(path: String, line: Int, reason: String)
    /// Two runs have the same name and the same path.
    case twice(path: String)
}

extension ReportError: CustomStringConvertible {
    /// What was wrong, where, and what would work.
    public var description: String {
        switch self {
        case .noRun(let path):
            "'\(path)' holds no metrics.jsonl; give the folder of a run, such as runs/quickstart"
        case .empty(let path):
            "'\(path)' has no step yet; wait for the first one to be done"
        case .badLine(let path, let line, let reason):
            "'\(path)', line \(line): \(reason); restore the file, or remove the line to report on the others"
        case .twice(let path):
            "'\(path)' is given twice; give each run once"
        }
    }
}
