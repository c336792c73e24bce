/// The text a run reads, and how it becomes sequences.
public struct DataConfiguration: Sendable, Equatable {
    /// What a token is.
    public enum Vocabulary: String, Sendable, CaseIterable {
        /// A byte, by its value.
        case bytes

        /// Tokens that the text and its document ends need.
        public var size: Int { endOfDocument + 1 }
        /// The token between two documents.
        public var endOfDocument: Int { 256 }
    }

    /// A file, or a folder whose files are documents.
    public var path: String
    /// What a token is.
    public var vocabulary: Vocabulary
    /// Tokens of one sequence.
    public var sequenceLength: Int
    /// The part of the text, from its end, that is kept for evaluation.
    public var heldOut: Double
    /// Whether sequences come in a random order.
    public var shuffle: Bool

    /// Text at `path`, cut into sequences of `sequenceLength`.
    public init(
        path: String, vocabulary: Vocabulary = .bytes, sequenceLength: Int, heldOut: Double = 0.05,
        shuffle: Bool = true
    ) {
        self.path = path
        self.vocabulary = vocabulary
        self.sequenceLength = sequenceLength
        self.heldOut = heldOut
        self.shuffle = shuffle
    }
}

/// What a run writes, and how often.
///
/// A count of steps that is 0 means: not while it runs.
public struct OutputConfiguration: Sendable, Equatable {
    /// Steps between checkpoints; the last step is always saved.
    public var saveEvery: Int
    /// Checkpoints kept, the newest ones; at least 1.
    public var keep: Int
    /// Steps between printed lines when the output is no terminal.
    public var logEvery: Int

    /// Common values.
    public init(saveEvery: Int = 1000, keep: Int = 2, logEvery: Int = 10) {
        self.saveEvery = saveEvery
        self.keep = keep
        self.logEvery = logEvery
    }
}
