import ApusTensor

// Shape letters: B sequences of a batch, S tokens of a sequence.

/// An endless stream of sequences, cut from runs of tokens or each an image, in an order that is a function of (seed, epoch, place).
///
/// Sequence `i` of a source reads tokens `i * S ..< i * S + S` and predicts each one's successor, so every token but the
/// first is a target once an epoch. Of one source, place `n` of the stream is place `n % count` of epoch `n / count`; of
/// several, ``SourceMixture`` first says which source a place reads, and each source counts its own epochs. There is no
/// state: a run resumes by the number of sequences it has read, whatever cut of batches and ranks read them.
public struct SequenceStream: Sendable {
    /// One run of tokens.
    public struct Source: Sendable {
        /// For messages.
        public var path: String
        /// The tokens.
        public var tokens: any TokenSource
        /// The share of the sequences that it gives is its weight over the sum of all.
        public var weight: Double

        /// A source; by default it weighs as many as it has tokens.
        public init(path: String, tokens: any TokenSource, weight: Double? = nil) {
            self.path = path
            self.tokens = tokens
            self.weight = weight ?? Double(max(tokens.count, 1))
        }
    }

    /// S.
    public let sequenceLength: Int
    /// Sequences of one epoch of every source.
    public let count: Int
    private let sources: [Source]
    private let counts: [Int]
    private let mixture: SourceMixture
    private let shuffleSeed: UInt64?
    private let masksDocuments: Bool
    private let images: (set: ImageSet, patch: Int)?

    /// A stream over `sources`; with a seed it is shuffled anew each epoch, with masks no token sees another document.
    ///
    /// - Parameters:
    ///   - temperature: of the shares, see ``SourceMixture``.
    ///   - part: what messages call the tokens: training or held-out.
    /// - Throws: ``DataError/tooShort(path:tokens:needed:part:)``
    public init(
        _ sources: [Source], sequenceLength: Int, shuffleSeed: UInt64?, mixtureSeed: UInt64 = 0,
        temperature: Double = 1, masksDocuments: Bool = false, part: String
    ) throws(DataError) {
        precondition(sequenceLength > 0 && !sources.isEmpty)
        for source in sources where source.tokens.count <= sequenceLength {
            throw .tooShort(path: source.path, tokens: source.tokens.count, needed: sequenceLength + 1, part: part)
        }
        self.sources = sources
        self.sequenceLength = sequenceLength
        self.shuffleSeed = shuffleSeed
        self.masksDocuments = masksDocuments
        images = nil
        counts = sources.map { ($0.tokens.count - 1) / sequenceLength }
        count = counts.reduce(0, +)
        let shares = SourceMixture.shares(weights: sources.map(\.weight), temperature: temperature)
        if let least = shares.firstIndex(where: { $0 < SourceMixture.leastShare }) {
            throw .malformed(
                path: sources[least].path,
                reason: "its share of the mixture is below \(SourceMixture.leastShare); raise its weight or "
                    + "data.temperature, or leave it out")
        }
        mixture = SourceMixture(shares: shares, seed: mixtureSeed)
    }

    /// A stream over images, each a sequence of a class token and its patches of `patch` x `patch` pixels; with a seed it is
    /// shuffled anew each epoch.
    ///
    /// - Parameter part: what messages call the images: training or held-out.
    /// - Throws: ``DataError/badImages(path:reason:)`` for none.
    public init(_ images: ImageSet, patch: Int, shuffleSeed: UInt64?, part: String) throws(DataError) {
        guard images.count > 0 else {
            throw .badImages(path: images.path, reason: "it leaves no \(part) image")
        }
        sources = []
        counts = [images.count]
        count = images.count
        sequenceLength = images.tokens(patch: patch)
        mixture = SourceMixture(shares: [1], seed: 0)
        self.shuffleSeed = shuffleSeed
        masksDocuments = false
        self.images = (images, patch)
    }

    /// A stream over one run of tokens in memory.
    ///
    /// - Throws: ``DataError/tooShort(path:tokens:needed:part:)``
    public init(
        _ tokens: ArraySlice<Int32>, sequenceLength: Int, shuffleSeed: UInt64?, path: String, part: String
    ) throws(DataError) {
        try self.init(
            [Source(path: path, tokens: MemoryTokens(tokens))], sequenceLength: sequenceLength,
            shuffleSeed: shuffleSeed, part: part)
    }

    /// The sequences at places `places` of the stream, one after the other.
    ///
    /// A rank takes the places of its slice of the global batch; what a place holds depends on nothing else.
    ///
    /// - Throws: ``DataError`` when a file is no longer what it was.
    public func sequences(_ places: Range<Int>) throws -> TokenBatch {
        var batch = TokenBatch(reserving: places.count * sequenceLength, masksDocuments: masksDocuments)
        for place in places {
            let (source, index) = location(of: place)
            if let (set, patch) = images {
                batch.append(
                    patches: set.patches(of: index, size: patch), tokens: sequenceLength, label: set.label(of: index))
                continue
            }
            let tokens = sources[source].tokens
            let range = index * sequenceLength..<(index + 1) * sequenceLength
            let starts = masksDocuments ? try tokens.documentStarts(in: range) : []
            batch.append(
                try tokens.tokens(range.lowerBound..<range.upperBound + 1),
                documentStarts: starts.map { $0 - range.lowerBound })
        }
        return batch
    }

    /// Which source is read at a place of the stream, and which of its sequences.
    public func location(of place: Int) -> (source: Int, index: Int) {
        let (source, place) = mixture.source(at: place)
        let count = counts[source]
        guard let shuffleSeed else { return (source, place % count) }
        let key = RandomStream(seed: shuffleSeed, purpose: .dataOrder, layer: source, step: place / count)
        return (source, Permutation(count: count, stream: key)(place % count))
    }

    /// Which sequence of its source is at a place of the stream.
    public func index(at place: Int) -> Int { location(of: place).index }
}
