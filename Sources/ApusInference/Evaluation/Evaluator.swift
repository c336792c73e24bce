public import ApusData
import ApusExperts
public import ApusKernels
public import ApusModels
public import ApusTensor

// Shape letters: T tokens, V vocabulary.

/// Runs a model over given sequences: their loss, or their logits.
public struct Evaluator {
    /// The model.
    public let model: Transformer
    /// Where it runs.
    public let backend: any Backend
    /// Tokens of a window of a long sequence.
    public let window: Int
    /// Most tokens in one pass, unless one window is longer.
    public let passTokens: Int

    /// An evaluator; windows are as long as the model's context unless told otherwise.
    ///
    /// - Throws: ``InferenceError/invalidOption(name:value:expected:)``
    public init(
        _ model: Transformer, backend: any Backend, window: Int? = nil, passTokens: Int = 8192
    ) throws(InferenceError) {
        let context = model.contextLength
        self.window = window ?? context
        guard self.window >= 1, self.window <= context else {
            throw .invalidOption(name: "the window", value: "\(self.window) tokens", expected: "1 ... \(context)")
        }
        guard passTokens >= 1 else {
            throw .invalidOption(name: "the number of tokens in a pass", value: "\(passTokens)", expected: "at least 1")
        }
        self.model = model
        self.backend = backend
        self.passTokens = passTokens
    }

    /// The loss of every token of `sequences` but each one's first.
    ///
    /// A sequence longer than the window is cut: window `w` reads tokens `w * W ..< (w + 1) * W` and predicts each one's
    /// successor, so every token is predicted once. Windows do not overlap; the first tokens of one see little context,
    /// which makes the result an upper bound of what the whole context would give.
    ///
    /// - Parameter vocabulary: Tells how many bytes the tokens stand for.
    /// - Throws: ``InferenceError`` for ids that the model does not have and when nothing is to be predicted;
    ///   ``TensorError`` when memory runs out.
    public func evaluate(_ sequences: [[Int32]], vocabulary: (any Vocabulary)? = nil) throws -> Evaluation {
        try evaluate(sequences, vocabulary: vocabulary, counting: nil)
    }

    /// The same, the choices of every expert added to `utilization` where there is one.
    func evaluate(
        _ sequences: [[Int32]], vocabulary: (any Vocabulary)?, counting utilization: UtilizationCounter?
    ) throws -> Evaluation {
        for (index, tokens) in sequences.enumerated() { try model.check(tokens, sequence: index) }
        let pieces = sequences.flatMap { tokens in
            // The last token predicts nothing that is known.
            stride(from: 0, to: tokens.count - 1, by: window).map { start in
                tokens[start...min(start + window, tokens.count - 1)]
            }
        }
        guard !pieces.isEmpty else { throw InferenceError.nothingToEvaluate(sequences: sequences.count) }
        let pass = Pass(model: model, backend: backend)
        var nats = 0.0
        var bytes = 0
        for range in Evaluator.batches(pieces.map { $0.count - 1 }, limit: passTokens) {
            let targets = pieces[range].flatMap { $0.dropFirst() }
            let report = utilization.map { _ in RoutingReport() }
            let losses = try pass.losses(pieces[range].map { $0.dropLast() }, targets: targets, report: report)
            if let report { try utilization?.add(report, backend: backend) }
            nats += losses.reduce(0) { $0 + Double($1) }
            if let vocabulary { bytes += targets.reduce(0) { $0 + vocabulary.bytes(of: $1).count } }
        }
        return Evaluation(
            nats: nats, tokens: pieces.reduce(0) { $0 + $1.count - 1 }, bytes: vocabulary == nil ? nil : bytes)
    }

    /// Calls `body` with each sequence's index and its logits (T, V) `f32`, on the device, in order; an empty sequence has
    /// (0, V).
    ///
    /// - Throws: ``InferenceError`` for a sequence longer than the context and for ids that the model does not have,
    ///   before anything runs; what `body` throws; ``TensorError`` when memory runs out.
    public func logits(of sequences: [[Int32]], _ body: (_ sequence: Int, _ logits: Tensor) throws -> Void) throws {
        for (index, tokens) in sequences.enumerated() {
            try model.check(tokens, sequence: index)
            guard tokens.count <= model.contextLength else {
                throw InferenceError.sequenceTooLong(
                    sequence: index, tokens: tokens.count, context: model.contextLength)
            }
        }
        let pass = Pass(model: model, backend: backend)
        for range in Evaluator.batches(sequences.map(\.count), limit: passTokens) {
            let full = sequences[range].filter { !$0.isEmpty }
            let logits = full.isEmpty ? nil : try pass.logits(full, isEvaluation: true)
            var first = 0
            for index in range {
                let count = sequences[index].count
                if let logits, count > 0 {
                    try body(index, logits[first..<first + count])
                } else {
                    try body(index, backend.empty(Shape(0, model.configuration.vocabulary), .f32))
                }
                first += count
            }
        }
    }

    /// Writes the logits of `sequences` to a safetensors file: `logits.0`, `logits.1`, ..., each (T, V) `f32`.
    ///
    /// - Parameter vocabulary: Tells how many bytes the tokens stand for.
    /// - Returns: the loss that follows from these logits, each sequence seen whole; `nil` when no sequence has two
    ///   tokens, so that none is predicted.
    /// - Throws: what ``logits(of:_:)`` throws; ``FileError``. On an error the file is as it was.
    @discardableResult
    public func writeLogits(
        of sequences: [[Int32]], to path: String, vocabulary: (any Vocabulary)? = nil
    ) throws -> Evaluation? {
        let specs = sequences.enumerated().map { index, tokens in
            TensorSpec(name: "logits.\(index)", dtype: .f32, shape: [tokens.count, model.configuration.vocabulary])
        }
        var writer = try SafetensorsWriter(path: path, tensors: specs)
        var (nats, tokens, byteCount) = (0.0, 0, 0)
        try logits(of: sequences) { index, logits in
            try backend.forEachPiece(of: logits) { try writer.append($0, to: specs[index].name) }
            let targets = Array(sequences[index].dropFirst())
            nats += try loss(logits, targets)
            tokens += targets.count
            if let vocabulary { byteCount += targets.reduce(0) { $0 + vocabulary.bytes(of: $1).count } }
        }
        try writer.finish()
        return tokens == 0 ? nil : Evaluation(nats: nats, tokens: tokens, bytes: vocabulary == nil ? nil : byteCount)
    }

    /// The summed loss in nats of logits (T, V) against targets (T - 1); the last token's predict nothing known.
    private func loss(_ logits: Tensor, _ targets: [Int32]) throws -> Double {
        guard !targets.isEmpty else { return 0 }
        let shape = Shape(targets.count)
        let (losses, logSumExp) = (try backend.empty(shape, .f32), try backend.empty(shape, .f32))
        try backend.crossEntropy(
            logits[0..<targets.count], targets: backend.tensor(targets, shape), loss: losses,
            logSumExp: logSumExp)
        return try backend.floats(losses).reduce(0) { $0 + Double($1) }
    }

    /// Consecutive items in as few batches as a limit on their summed sizes allows; an item above it is alone.
    private static func batches(_ sizes: [Int], limit: Int) -> [Range<Int>] {
        var batches: [Range<Int>] = []
        var (begin, sum) = (0, 0)
        for (index, size) in sizes.enumerated() {
            if index > begin, sum + size > limit {
                batches.append(begin..<index)
                (begin, sum) = (index, 0)
            }
            sum += size
        }
        return begin < sizes.count ? batches + [begin..<sizes.count] : batches
    }
}
