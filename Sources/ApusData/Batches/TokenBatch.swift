// Shape letters: B sequences of a batch, S tokens of a sequence, T = B * S.

/// Sequences of equal length, one after the other, with what each token is to predict.
public struct TokenBatch: Sendable, Equatable {
    /// Where the documents of packed sequences lie.
    public struct Documents: Sendable, Equatable {
        /// (T): each token's place in its document, or in what the sequence has of it.
        public var positions: [Int32]
        /// (T): the first token that each token sees, counted from its sequence's start.
        public var firstKeys: [Int32]

        /// Positions and first keys, (T) each.
        public init(positions: [Int32], firstKeys: [Int32]) {
            precondition(positions.count == firstKeys.count)
            self.positions = positions
            self.firstKeys = firstKeys
        }

        /// Those of tokens `range`.
        public subscript(range: Range<Int>) -> Documents {
            Documents(positions: Array(positions[range]), firstKeys: Array(firstKeys[range]))
        }
    }

    /// (T) token ids, or (T * P), the P pixels of each token's patch.
    public var inputs: [Int32]
    /// (T): what each token is to predict, its successor or the class of its image; negative ones are ignored.
    public var targets: [Int32]
    /// `nil` when every token sees all before it in its sequence.
    public var documents: Documents?

    /// The tokens `range`, of whole sequences.
    public subscript(range: Range<Int>) -> TokenBatch {
        let width = inputs.count / max(targets.count, 1)
        return TokenBatch(
            inputs: Array(inputs[range.lowerBound * width..<range.upperBound * width]), targets: Array(targets[range]),
            documents: documents.map { $0[range] })
    }

    /// A batch of these parts.
    public init(inputs: [Int32], targets: [Int32], documents: Documents? = nil) {
        precondition(targets.isEmpty ? inputs.isEmpty : inputs.count.isMultiple(of: targets.count))
        precondition(documents.map { $0.positions.count == targets.count } ?? true)
        self.inputs = inputs
        self.targets = targets
        self.documents = documents
    }
}

extension TokenBatch {
    /// Ignored as a target.
    private static let ignored: Int32 = -100

    /// Room for sequences.
    init(reserving tokens: Int, masksDocuments: Bool) {
        self.init(inputs: [], targets: [], documents: masksDocuments ? Documents(positions: [], firstKeys: []) : nil)
        inputs.reserveCapacity(tokens)
        targets.reserveCapacity(tokens)
        documents?.positions.reserveCapacity(tokens)
        documents?.firstKeys.reserveCapacity(tokens)
    }

    /// Appends an image's `patches` (S * P), of whose S tokens the first is to tell the class.
    mutating func append(patches: [Int32], tokens: Int, label: Int32) {
        inputs += patches
        targets.append(label)
        targets.append(contentsOf: repeatElement(Self.ignored, count: tokens - 1))
    }

    /// Appends the sequence of `tokens` (S + 1), of which the last is a target only. `starts` are the places in 1 ... S
    /// at which a document begins.
    ///
    /// With masks a document's last token predicts nothing, since what follows is no part of it.
    mutating func append(_ tokens: [Int32], documentStarts starts: [Int]) {
        let length = tokens.count - 1
        let first = targets.count
        inputs += tokens[..<length]
        targets += tokens[1...]
        guard documents != nil else { return }
        var begin = 0
        for end in starts + [length] where end > begin && end <= length {
            documents?.positions.append(contentsOf: (0..<end - begin).lazy.map(Int32.init))
            documents?.firstKeys.append(contentsOf: repeatElement(Int32(begin), count: end - begin))
            begin = end
        }
        for start in starts { targets[first + start - 1] = Self.ignored }
    }
}
