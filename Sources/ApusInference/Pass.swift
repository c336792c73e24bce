import ApusExperts
import ApusKernels
import ApusModels
import ApusNN
import ApusTensor

// Shape letters: T tokens, S sequences, N rows, V vocabulary.

/// One forward pass over sequences of any lengths, nothing recorded.
struct Pass {
    let model: Transformer
    let backend: any Backend

    /// Logits (N, V) of the tokens `rows` of the batch, or of all T.
    ///
    /// - Parameters:
    ///   - batch: Each sequence's tokens, not empty: all of them, or with `cache` those that are new.
    ///   - sequences: Their names in `cache`.
    ///   - isEvaluation: Whether a policy's capacity for evaluation holds, for each sequence by itself.
    func logits(
        _ batch: [some Collection<Int32>], sequences: [BlockCache.SequenceID]? = nil, rows: [Int32]? = nil,
        _ cache: BlockCache? = nil, isEvaluation: Bool = false
    ) throws -> Tensor {
        let tokens = try tensor(batch.flatMap { $0 })
        // A pass that only fills the cache still ends in a product, of one row that nobody reads.
        let rows = try rows.map { try tensor($0.isEmpty ? [0] : $0) }
        let body = { (layout: TokenLayout) in
            let tape = Tape(backend: backend, isRecording: false)
            let context = MoEContext(
                forward: ForwardContext(tape: tape, layout: layout, keyValues: cache), countsLoads: false,
                isEvaluation: isEvaluation)
            return try model.logits(tokens: tokens, rows: rows, context)
        }
        guard let cache, let sequences else { return try body(layout(batch)) }
        return try cache.step(zip(sequences, batch).map { BlockCache.Entry($0, tokens: $1.count) }, body)
    }

    /// The loss in nats of each of the batch's tokens (T) against `targets` (T); 0 where the target is negative.
    ///
    /// - Parameter report: What the MoE layers tell of the pass; `nil` when nobody reads it.
    func losses(
        _ batch: [some Collection<Int32>], targets: [Int32], report: RoutingReport? = nil
    ) throws -> [Float] {
        let tape = Tape(backend: backend, isRecording: false)
        let context = MoEContext(
            forward: ForwardContext(tape: tape, layout: try layout(batch)), report: report, isEvaluation: true)
        return try backend.floats(
            model.loss(tokens: tensor(batch.flatMap { $0 }), targets: tensor(targets), scale: 1, context).perToken)
    }

    private func layout(_ batch: [some Collection<Int32>]) throws -> TokenLayout {
        try TokenLayout.sequences(batch.map(\.count), backend: backend)
    }

    private func tensor(_ values: [Int32]) throws -> Tensor {
        try backend.tensor(values, Shape(values.count))
    }
}

extension Transformer {
    /// Tokens of the longest sequence that it can read: the rotary angles prepared, or the learned positions.
    var contextLength: Int {
        blocks.lazy.compactMap(\.attention.rotary).first?.positionCount ?? configuration.maximumPositions
    }

    func hasToken(_ id: Int32) -> Bool { id >= 0 && id < configuration.vocabulary }

    /// - Throws: ``InferenceError/tokenOutsideVocabulary(sequence:position:id:vocabulary:)`` for the first such token;
    ///   ``InferenceError/classifiesImages``.
    func check(_ tokens: [Int32], sequence: Int) throws(InferenceError) {
        guard configuration.patches == nil else { throw .classifiesImages }
        guard let position = tokens.firstIndex(where: { !hasToken($0) }) else { return }
        throw .tokenOutsideVocabulary(
            sequence: sequence, position: position, id: tokens[position], vocabulary: configuration.vocabulary)
    }
}
