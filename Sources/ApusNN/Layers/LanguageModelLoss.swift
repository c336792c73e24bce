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
        /// (T) `f32`: the cross-entropy of each token in nats, 0 where the target is negative.
        public let perToken: Tensor
        /// (T) `f32`: the divergence from the teacher's distribution, likewise; `nil` without a teacher.
        public let divergence: Tensor?

        /// A loss that was computed elsewhere.
        public init(total: Variable, perToken: Tensor, divergence: Tensor? = nil) {
            self.total = total
            self.perToken = perToken
            self.divergence = divergence
        }
    }

    /// See ``LossLayer/callAsFunction(_:targets:scale:teacher:on:)``.
    public func callAsFunction(
        _ x: Variable, targets: Tensor, scale: Float, teacher: TeacherStates?, on tape: Tape
    ) throws -> Result {
        let backend = tape.backend
        let tokens = x.shape[0]
        let perToken = try backend.empty(Shape(tokens), .f32)
        let logSumExp = try backend.empty(Shape(tokens), .f32)
        let chunks = chunks(of: tokens)
        let sums = try teacher.map { _ in try DivergenceSums(tokens: tokens, backend) }
        var kept: (student: Tensor, teacher: Tensor?)?
        for range in chunks {
            let logits = try self.logits(x.tensor[range], backend)
            try backend.crossEntropy(
                logits, targets: targets[range], loss: perToken[range], logSumExp: logSumExp[range])
            let other = try teacher?.logits(range, backend)
            if let other, let sums, let term = teacher?.term {
                try sums.measure(range, teacher: other, student: logits, targets: targets, term, backend)
            }
            if chunks.count == 1, tape.isRecording { kept = (logits, other) }
        }
        let divergence = try sums?.divergence(backend)
        let total = try Result.total(perToken, divergence, teacher?.term, scale: scale, backend)
        let logits = kept
        let loss = tape.record("language_model_loss", inputs: [x], output: total) { flow in
            guard let seed = flow.output() else { return }
            let backend = flow.backend
            let factor = try backend.empty(Shape(1), .f32)
            try backend.scale(seed, by: scale, into: factor)
            func overChunks(_ dx: Tensor?, _ adds: Bool) throws {
                for range in chunks {
                    let own = try logits?.student ?? self.logits(x.tensor[range], backend)
                    // Overwritten in place in f32; a bf16 model's products read a bf16 gradient.
                    let gradient = x.dtype == .f32 ? own : try backend.empty(own.shape, x.dtype)
                    if let teacher, let sums {
                        let other = try logits?.teacher ?? teacher.logits(range, backend)
                        try backend.distillationBackward(
                            teacher: other, student: own, targets: targets[range], teacher.term,
                            logSumExp: logSumExp[range], teacherLog: sums.teacherLog[range],
                            studentLog: sums.studentLog[range], scale: factor, into: gradient)
                    } else {
                        try backend.crossEntropyBackward(
                            own, targets: targets[range], logSumExp: logSumExp[range], scale: factor, into: gradient)
                    }
                    try backward(gradient, x.tensor[range], into: dx?[range], adds: adds, backend)
                }
            }
            if x.needsGradient {
                try flow.accumulate(into: x, overChunks)
            } else {
                try overChunks(nil, false)
            }
        }
        return Result(total: loss, perToken: perToken, divergence: divergence)
    }

    /// Logits (T, V) `f32` of hidden states (T, D).
    public func logits(_ x: Tensor, _ backend: any Backend) throws -> Tensor {
        let logits = try backend.empty(Shape(x.shape[0], weight.weightShape[0]), .f32)
        try weight.withWeights(on: backend.stream) { try backend.matMul(x.matrix, $0.transpose, into: logits) }
        return logits
    }

    /// The tokens whose logits exist at the same time.
    public func chunks(of tokens: Int) -> [Range<Int>] {
        stride(from: 0, to: tokens, by: chunk).map { $0..<min($0 + chunk, tokens) }
    }

    /// The adjoint of the product: from the gradient of the logits (t, V) of hidden states `x` (t, D) to that of the weights,
    /// and to `dx` (t, D), added there if it `adds`.
    public func backward(
        _ gradient: Tensor, _ x: Tensor, into dx: Tensor?, adds: Bool, _ backend: any Backend
    ) throws {
        if let (target, adds) = try weight.gradientTarget() {
            try backend.matMul(gradient.transpose, x.matrix, into: target, adds: adds)
        }
        guard let dx else { return }
        try weight.withWeights(on: backend.stream) {
            try backend.matMul(gradient.matrix, $0.matrix, into: dx, adds: adds)
        }
    }
}
