public import ApusKernels
public import ApusTensor

// Shape letters: T tokens, V vocabulary, D model width.

/// The head's product and the cross-entropy after it, in chunks of tokens so that the logits of the whole batch never
/// exist at once.
///
/// The loss is a sum over target tokens times a scale that is known before: 1 / target tokens of the global batch. One
/// chunk's logits are kept for backward; with several, each is computed again.
public struct LanguageModelLoss {
    /// (V, D).
    public let weight: any Weight
    /// Most tokens whose logits exist at once.
    public let chunk: Int

    /// A loss over the head's weights.
    public init(weight: any Weight, chunk: Int = 4096) {
        precondition(chunk > 0)
        self.weight = weight
        self.chunk = chunk
    }

    /// The loss of a batch, and each token's own.
    public struct Result {
        /// (1) `f32`: `scale` times the summed loss.
        public let total: Variable
        /// (T) `f32`: the loss of each token in nats, 0 where the target is negative.
        public let perToken: Tensor

        /// A loss that was computed elsewhere.
        public init(total: Variable, perToken: Tensor) {
            self.total = total
            self.perToken = perToken
        }
    }

    /// Cross-entropy of hidden states (T, D) against `targets` (T) `i32`; negative targets are ignored.
    public func callAsFunction(_ x: Variable, targets: Tensor, scale: Float, on tape: Tape) throws -> Result {
        let backend = tape.backend
        let tokens = x.shape[0]
        let perToken = try backend.empty(Shape(tokens), .f32)
        let logSumExp = try backend.empty(Shape(tokens), .f32)
        let chunks = stride(from: 0, to: tokens, by: chunk).map { $0..<min($0 + chunk, tokens) }
        var kept: Tensor?
        for range in chunks {
            let logits = try self.logits(x.tensor[range], backend)
            try backend.crossEntropy(
                logits, targets: targets[range], loss: perToken[range], logSumExp: logSumExp[range])
            if chunks.count == 1, tape.isRecording { kept = logits }
        }
        let total = try backend.empty(Shape(1), .f32)
        try backend.sum(perToken, factor: scale, into: total)
        let logits = kept
        let loss = tape.record("language_model_loss", inputs: [x], output: total) { flow in
            guard let seed = flow.output() else { return }
            let backend = flow.backend
            let factor = try backend.empty(Shape(1), .f32)
            try backend.scale(seed, by: scale, into: factor)
            func overChunks(_ dx: Tensor?, _ adds: Bool) throws {
                for range in chunks {
                    let logits = try logits ?? self.logits(x.tensor[range], backend)
                    try backward(
                        logits, x.tensor[range], targets[range], logSumExp[range], factor, dx?[range], adds, backend)
                }
            }
            if x.needsGradient {
                try flow.accumulate(into: x, overChunks)
            } else {
                try overChunks(nil, false)
            }
        }
        return Result(total: loss, perToken: perToken)
    }

    /// Logits (T, V) `f32` of hidden states (T, D).
    public func logits(_ x: Tensor, _ backend: any Backend) throws -> Tensor {
        let logits = try backend.empty(Shape(x.shape[0], weight.weightShape[0]), .f32)
        try weight.withWeights(on: backend.stream) { try backend.matMul(x.matrix, $0.transpose, into: logits) }
        return logits
    }

    private func backward(
        _ logits: Tensor, _ x: Tensor, _ targets: Tensor, _ logSumExp: Tensor, _ factor: Tensor, _ dx: Tensor?,
        _ adds: Bool, _ backend: any Backend
    ) throws {
        // Overwritten in place in f32; a bf16 model's products read a bf16 gradient.
        let gradient = x.dtype == .f32 ? logits : try backend.empty(logits.shape, x.dtype)
        try backend.crossEntropyBackward(logits, targets: targets, logSumExp: logSumExp, scale: factor, into: gradient)
        if let (target, adds) = try weight.gradientTarget() {
            try backend.matMul(gradient.transpose, x.matrix, into: target, adds: adds)
        }
        guard let dx else { return }
        try weight.withWeights(on: backend.stream) {
            try backend.matMul(gradient.matrix, $0.matrix, into: dx, adds: adds)
        }
    }
}
