/// What a run reads, and how it becomes sequences.
public struct DataConfiguration: Sendable, Equatable {
    /// What a token of text is. Prepared data has a vocabulary of its own.
    public enum Vocabulary: String, Sendable, CaseIterable {
        /// A byte, by its value.
        case bytes

        /// Tokens that the text and its document ends need.
        public var size: Int { endOfDocument + 1 }
        /// The token between two documents.
        public var endOfDocument: Int { 256 }
    }

    /// One of the places that sequences come from.
    public struct Source: Sendable, Equatable {
        /// A text file, a folder whose files are documents, or a folder that `apus data prepare` wrote.
        public var path: String
        /// How often sequences come from it, against the other sources; `nil` for as many as it has tokens.
        public var weight: Double?

        /// A source at `path`.
        public init(path: String, weight: Double? = nil) {
            self.path = path
            self.weight = weight
        }
    }

    /// Where sequences come from: at least one; all have weights, or none has.
    public var sources: [Source]
    /// What a token of text is.
    public var vocabulary: Vocabulary
    /// Tokens of one sequence.
    public var sequenceLength: Int
    /// The part of a text, from its end, that is kept for evaluation; of prepared data, whose part was chosen when it was
    /// prepared, whether it is evaluated: 0 for not.
    public var heldOut: Double
    /// Whether sequences come in a random order.
    public var shuffle: Bool
    /// Brings the shares of several sources closer to each other when above 1: shares go as weight ^ (1 / temperature).
    public var temperature: Double
    /// Whether tokens see their own document only, and positions begin anew with each.
    public var documentMask: Bool
    /// Whether prepared data is read through before the run begins, and compared with its checksums.
    public var verify: Bool

    /// Text at `path`, cut into sequences of `sequenceLength`.
    public init(
        path: String, vocabulary: Vocabulary = .bytes, sequenceLength: Int, heldOut: Double = 0.05,
        shuffle: Bool = true, documentMask: Bool = false
    ) {
        self.init(
            sources: [Source(path: path)], vocabulary: vocabulary, sequenceLength: sequenceLength, heldOut: heldOut,
            shuffle: shuffle, documentMask: documentMask)
    }

    /// A mixture of sources, cut into sequences of `sequenceLength`.
    public init(
        sources: [Source], vocabulary: Vocabulary = .bytes, sequenceLength: Int, heldOut: Double = 0.05,
        shuffle: Bool = true, temperature: Double = 1, documentMask: Bool = false, verify: Bool = true
    ) {
        self.sources = sources
        self.vocabulary = vocabulary
        self.sequenceLength = sequenceLength
        self.heldOut = heldOut
        self.shuffle = shuffle
        self.temperature = temperature
        self.documentMask = documentMask
        self.verify = verify
    }

    /// The only source, or the first of several.
    public var path: String {
        get { sources.first?.path ?? "" }
        set { sources = [Source(path: newValue)] }
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
