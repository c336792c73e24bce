public import ApusTensor

/// What is wrong with a tokenizer, its file or its training.
public enum TokenizerError: Error, Sendable, Equatable {
    /// There is no such file.
    case notFound(path: String)
    /// The file cannot be read or written.
    case file(FileError)
    /// The text is not what the format says, at this byte.
    case malformed(path: String, offset: Int, reason: String)
    /// A part that the format allows and Apus does not have.
    case unsupported(path: String, part: String, found: String, works: String)
    /// Parts that contradict each other.
    case inconsistent(path: String, reason: String)
    /// A training that cannot give what was asked for.
    case training(reason: String)
}

extension TokenizerError: CustomStringConvertible {
    /// What was wrong, where, and what would work.
    public var description: String {
        switch self {
        case .notFound(let path):
            "tokenizer '\(path)': no such file; name a tokenizer.json or a SentencePiece .model"
        case .file(let error): "tokenizer \(error)"
        case .malformed(let path, let offset, let reason):
            "tokenizer '\(path)' is not a valid tokenizer.json: \(reason), at byte \(offset)"
        case .unsupported(let path, let part, let found, let works):
            "tokenizer '\(path)': \(part) is \(found), which Apus does not have. What works: \(works)"
        case .inconsistent(let path, let reason): "tokenizer '\(path)': \(reason)"
        case .training(let reason): "a tokenizer cannot be trained: \(reason)"
        }
    }
}
