import ApusTensor

/// What is wrong with training data: text, the token shards made of it, or images.
public enum DataError: Error, Sendable, Equatable {
    /// Nothing there, or no permission to read it.
    case unreadable(path: String, reason: String)
    /// A folder without a file that could be read as text.
    case noText(path: String)
    /// A file of no bytes.
    case empty(path: String)
    /// A byte that text does not have.
    case binary(path: String, offset: Int, byte: UInt8)
    /// Bytes that are not UTF-8; `offset` is that of the first.
    case notUTF8(path: String, offset: Int)
    /// A line of a JSONL file that holds no document; lines count from 1.
    case badLine(path: String, line: Int, reason: String)
    /// A file that is taken for text by its name, and begins as JSONL.
    case looksLikeLines(path: String)
    /// A file that has to be prepared before it can be read as text.
    case needsPreparation(path: String, what: String)
    /// A compressed file that its format does not allow, or one that ends too early.
    case badCompression(path: String, format: String, reason: String)
    /// A library that a file needs is not installed.
    case missingLibrary(path: String, library: String, package: String)
    /// Text of more bytes than there is memory for; `most` would do.
    case tooLarge(path: String, bytes: Int, most: Int)
    /// Fewer tokens than one sequence needs.
    case tooShort(path: String, tokens: Int, needed: Int, part: String)
    /// The text is not what a run began with.
    case changed(path: String, expected: UInt64, found: UInt64)
    /// A data file is not as it was written, or as it was when it was opened.
    case fileChanged(path: String, what: String)
    /// A shard or manifest is not what its format allows.
    case malformed(path: String, reason: String)
    /// A file of images that is none, or whose images are not what a model reads.
    case badImages(path: String, reason: String)
    /// Sources, or a source and a model, whose tokens mean different things.
    case otherVocabulary(path: String, found: String, remedy: String)
    /// Prepared data of which nothing was held out, where something is to be evaluated.
    case noHeldOut(path: String)
    /// The folder to write exists already.
    case outputExists(path: String)
}

extension DataError: CustomStringConvertible {
    /// What was wrong, where, and what would work.
    public var description: String {
        switch self {
        case .unreadable(let path, let reason):
            "'\(path)' cannot be read: \(reason). Name a text file or a folder of text files (in a recipe: data.path)"
        case .noText(let path):
            "folder '\(path)' holds no file; put text files into it, or name a file (in a recipe: data.path)"
        case .empty(let path):
            "'\(path)' is empty; give a file with text (in a recipe: data.path)"
        case .binary(let path, let offset, let byte):
            "'\(path)' is not text: byte \(byte) at offset \(offset). Convert it to UTF-8 text first"
        case .notUTF8(let path, let offset):
            "'\(path)' is not UTF-8: the bytes at offset \(offset) are no character. Convert it to UTF-8 text first"
        case .badLine(let path, let line, let reason):
            "'\(path)', line \(line): \(reason). Each line must be a JSON object with the text of one document as \"text\""
        case .looksLikeLines(let path):
            "'\(path)' begins as JSONL, one JSON object with \"text\" a line; say --format jsonl to read the texts, or "
                + "--format text to take the lines as they are"
        case .needsPreparation(let path, let what):
            "'\(path)' is \(what) by its name, and no text as it is; make token shards of it with 'apus data prepare'"
        case .badCompression(let path, let format, let reason):
            "'\(path)' cannot be unpacked as \(format): \(reason). Copy or download it again"
        case .missingLibrary(let path, let library, let package):
            "'\(path)' needs \(library), which this machine lacks: apt-get install \(package), or unpack the file first"
        case .tooLarge(let path, let bytes, let most):
            "'\(path)' holds at least \(bytes) bytes of text, and this machine's memory has room for \(most); make token "
                + "shards of it with 'apus data prepare', which are read as they are needed"
        case .tooShort(let path, let tokens, let needed, let part):
            "'\(path)' has \(tokens) tokens of \(part) text and one sequence needs \(needed); lower "
                + "data.sequence_length, or use more text"
        case .changed(let path, let expected, let found):
            "'\(path)' is not the text that the run began with (checksum \(String(found, radix: 16)) instead of "
                + "\(String(expected, radix: 16))); resume with the same text, or start a new run with --out"
        case .fileChanged(let path, let what):
            "'\(path)' \(what); copy it again, or prepare the data anew with 'apus data prepare'"
        case .malformed(let path, let reason):
            "'\(path)': \(reason); copy it again, or prepare the data anew with 'apus data prepare'"
        case .badImages(let path, let reason):
            "'\(path)': \(reason). Images come in a file such as Scripts/fetch-images.sh writes (in a recipe: data.path)"
        case .otherVocabulary(let path, let found, let remedy):
            "'\(path)' has tokens of \(found); \(remedy)"
        case .noHeldOut(let path):
            "'\(path)' has nothing held out to evaluate; set training.evaluate_every to 0, or prepare it anew with "
                + "--held-out 0.01"
        case .outputExists(let path):
            "'\(path)' exists already; choose another --out, or remove it first"
        }
    }
}
