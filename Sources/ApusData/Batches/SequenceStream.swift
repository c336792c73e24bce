import ApusTensor

// Shape letters: B sequences of a batch, S tokens of a sequence.

/// An endless stream of sequences cut from a run of tokens, in an order that is a function of (seed, epoch, place).
///
/// Sequence `i` reads tokens `i * S ..< i * S + S` and predicts each one's successor, so every token but the first is a
/// target once an epoch. Place `n` of the stream is place `n % count` of epoch `n / count`. There is no state: a run
/// resumes by the number of sequences it has read, whatever cut of batches and ranks read them.
public struct SequenceStream: Sendable {
    /// S.
    public let sequenceLength: Int
    /// Sequences of one epoch.
    public let count: Int
    private let tokens: ArraySlice<Int32>
    private let order: Order

    private enum Order: Sendable {
        case inOrder
        case shuffled(seed: UInt64)
    }

    /// A stream over `tokens`; with a seed it is shuffled anew each epoch.
    ///
    /// - Throws: ``DataError/tooShort(path:tokens:needed:part:)``
    public init(
        _ tokens: ArraySlice<Int32>, sequenceLength: Int, shuffleSeed: UInt64?, path: String, part: String
    ) throws(DataError) {
        precondition(sequenceLength > 0)
        guard tokens.count > sequenceLength else {
            throw .tooShort(path: path, tokens: tokens.count, needed: sequenceLength + 1, part: part)
        }
        self.tokens = tokens
        self.sequenceLength = sequenceLength
        count = (tokens.count - 1) / sequenceLength
        order = shuffleSeed.map { .shuffled(seed: $0) } ?? .inOrder
    }

    /// Inputs and targets of the sequences at places `places` of the stream, one after the other.
    public func sequences(_ places: Range<Int>) -> (inputs: [Int32], targets: [Int32]) {
        var inputs: [Int32] = []
        var targets: [Int32] = []
        inputs.reserveCapacity(places.count * sequenceLength)
        targets.reserveCapacity(places.count * sequenceLength)
        for place in places {
            let begin = tokens.startIndex + index(at: place) * sequenceLength
            inputs += tokens[begin..<begin + sequenceLength]
            targets += tokens[begin + 1..<begin + 1 + sequenceLength]
        }
        return (inputs, targets)
    }

    /// Which sequence of the text is at a place of the stream.
    public func index(at place: Int) -> Int {
        guard case .shuffled(let seed) = order else { return place % count }
        let key = RandomStream(seed: seed, purpose: .dataOrder, step: place / count)
        return Permutation(count: count, stream: key)(place % count)
    }
}
