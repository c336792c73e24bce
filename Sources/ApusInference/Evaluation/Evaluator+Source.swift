public import ApusData

extension Evaluator {
    /// Tokens read from a source at once, as far as a whole number of windows allows: 4 MiB of ids.
    private static let pieceTokens = 1 << 20

    /// The loss of the first `limit` tokens of a source but the very first, in windows as of one long sequence.
    ///
    /// The source is read a piece at a time: its size does not matter for memory.
    ///
    /// - Throws: ``InferenceError`` for ids that the model does not have and when nothing is to be predicted; ``DataError``
    ///   when a file is no longer what it was; ``TensorError`` when memory runs out.
    public func evaluate(
        _ source: any TokenSource, limit: Int? = nil, vocabulary: (any Vocabulary)? = nil
    ) throws -> Evaluation {
        try evaluate(source, limit: limit, vocabulary: vocabulary, counting: nil)
    }

    /// How often each expert is chosen by the tokens that ``evaluate(_:limit:vocabulary:)`` reads, and the loss that comes
    /// with it.
    ///
    /// - Throws: as ``evaluate(_:limit:vocabulary:)``.
    public func utilization(
        of source: any TokenSource, limit: Int? = nil
    ) throws -> (utilization: ExpertUtilization, evaluation: Evaluation) {
        let counter = UtilizationCounter()
        let evaluation = try evaluate(source, limit: limit, vocabulary: nil, counting: counter)
        return (ExpertUtilization(choices: counter.choices), evaluation)
    }

    private func evaluate(
        _ source: any TokenSource, limit: Int?, vocabulary: (any Vocabulary)?, counting: UtilizationCounter?
    ) throws -> Evaluation {
        let count = min(source.count, limit ?? source.count)
        guard count > 1 else { throw InferenceError.nothingToEvaluate(sequences: 1) }
        let piece = max(1, Evaluator.pieceTokens / window) * window
        var (nats, tokens, bytes) = (0.0, 0, 0)
        for first in stride(from: 0, to: count - 1, by: piece) {
            // The token after a piece is its last target.
            let part = try evaluate(
                [source.tokens(first..<min(first + piece + 1, count))], vocabulary: vocabulary, counting: counting)
            nats += part.nats
            tokens += part.tokens
            bytes += part.bytes ?? 0
        }
        return Evaluation(nats: nats, tokens: tokens, bytes: vocabulary == nil ? nil : bytes)
    }
}
