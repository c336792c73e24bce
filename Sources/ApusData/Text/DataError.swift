/// What is wrong with training text.
public enum DataError: Error, Sendable, Equatable {
    /// Nothing there, or no permission to read it.
    case unreadable(path: String, reason: String)
    /// A folder without a file that could be read as text.
    case noText(path: String)
    /// A file of no bytes.
    case empty(path: String)
    /// A byte that text does not have.
    case binary(path: String, offset: Int, byte: UInt8)
    /// Fewer tokens than one sequence needs.
    case tooShort(path: String, tokens: Int, needed: Int, part: String)
    /// The text is not what a run began with.
    case changed(path: String, expected: UInt64, found: UInt64)
}

extension DataError: CustomStringConvertible {
    /// What was wrong, where, and what would work.
    public var description: String {
        switch self {
        case .unreadable(let path, let reason):
            "'\(path)' cannot be read: \(reason). Set data.path to a text file or a folder of text files"
        case .noText(let path):
            "folder '\(path)' holds no file; put text files into it, or set data.path to a file"
        case .empty(let path):
            "'\(path)' is empty; data.path needs text of at least one sequence"
        case .binary(let path, let offset, let byte):
            "'\(path)' is not text: byte \(byte) at offset \(offset). Convert it to UTF-8 text first"
        case .tooShort(let path, let tokens, let needed, let part):
            "'\(path)' has \(tokens) tokens of \(part) text and one sequence needs \(needed); lower "
                + "data.sequence_length, or use more text"
        case .changed(let path, let expected, let found):
            "'\(path)' is not the text that the run began with (checksum \(String(found, radix: 16)) instead of "
                + "\(String(expected, radix: 16))); resume with the same text, or start a new run with --out"
        }
    }
}
