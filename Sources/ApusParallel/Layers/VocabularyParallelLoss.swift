public import ApusCollectives
public import ApusKernels
public import ApusNN
public import ApusTensor

// Shape letters: T tokens, V vocabulary, D model width, N tensor-parallel ranks, L entries of the vocabulary on one.

/// The head's product and the cross-entropy after it with the vocabulary divided over the ranks. Logits stay where they
/// are made; what the ranks exchange is N + 1 numbers for each token, once for the whole batch.
///
/// Every rank finds the log of the sum of exponentials over its own entries, and the owner of the target the loss among
/// its own. The whole loss is the latter plus a cross-entropy over the N logs, with the owner as target: first which
/// rank, then which of its entries.
///
/// A token whose target is elsewhere still has a gradient here. It gets a target nevertheless: one more column, whose
/// logit is so low that it weighs nothing and whose gradient nobody reads.
public struct VocabularyParallelLoss: LossLayer {
    private let local: LanguageModelLoss
    private let vocabulary: Int
    private let group: any Collective
    private let boundary: any TokenBoundary

    /// Columns behind the logits, of which the first is used: keeps rows aligned.
    private static let margin = 8
    private static let nothing: Float = -1e30

    /// A divided loss of which `local` has this rank's rows of the head's weights, over ``LanguageModelLoss/chunk``
    /// tokens at a time.
    public init(
        _ local: LanguageModelLoss, vocabulary: Int, group: any Collective, boundary: any TokenBoundary
    ) {
        precondition(local.weight.weightShape[0] == group.ownShare(ofVocabulary: vocabulary).count)
        self.local = local
        self.vocabulary = vocabulary
        self.group = group
        self.boundary = boundary
    }

    private var entries: Int { local.weight.weightShape[0] }

    public func enter(_ x: Variable, on tape: Tape) throws -> Variable { try boundary.enter(x, on: tape) }

    /// Reads the targets on the host: on a GPU that waits.
    public func callAsFunction(
        _ x: Variable, targets: Tensor, scale: Float, teacher: TeacherStates?, on tape: Tape
    ) throws -> LanguageModelLoss.Result {
        let backend = tape.backend
        let tokens = x.shape[0]
        let places = try Places(targets, vocabulary: vocabulary, group: group, backend)
        let ownLoss = try backend.empty(Shape(tokens), .f32)
        let ownLog = try backend.empty(Shape(tokens), .f32)
        let chunks = local.chunks(of: tokens)
        let ownSums = try teacher.map { _ in try DivergenceSums(tokens: tokens, backend) }
        var kept: (student: Tensor, teacher: Tensor?)?
        for range in chunks {
            let logits = try paddedLogits(x.tensor[range], backend)
            try backend.crossEntropy(
                logits.columns(0..<entries + 1), targets: places.local[range], loss: ownLoss[range],
                logSumExp: ownLog[range])
            let other = try teacher?.logits(range, backend)
            if let other, let ownSums, let term = teacher?.term {
                try ownSums.measure(
                    range, teacher: other, student: logits.columns(0..<entries), targets: places.local, term, backend)
            }
            if chunks.count == 1, tape.isRecording { kept = (logits, other) }
        }
        let (perToken, logSumExp) = try reduce(ownLoss, ownLog, places, backend)
        let sums = try ownSums.map { try reduce($0, backend) }
        let divergence = try sums?.divergence(backend)
        let total = try LanguageModelLoss.Result.total(perToken, divergence, teacher?.term, scale: scale, backend)
        let logits = kept
        let loss = tape.record("language_model_loss", inputs: [x], output: total) { flow in
            guard let seed = flow.output() else { return }
            let backend = flow.backend
            let factor = try backend.empty(Shape(1), .f32)
            try backend.scale(seed, by: scale, into: factor)
            func overChunks(_ dx: Tensor?, _ adds: Bool) throws {
                for range in chunks {
                    let own = try logits?.student ?? paddedLogits(x.tensor[range], backend)
                    // Overwritten in place in f32; a bf16 model's products read a bf16 gradient.
                    let gradient = x.dtype == .f32 ? own : try backend.empty(own.shape, x.dtype)
                    if let teacher, let sums {
                        // A target elsewhere is beyond these columns.
                        try backend.distillationBackward(
                            teacher: try logits?.teacher ?? teacher.logits(range, backend),
                            student: own.columns(0..<entries), targets: places.local[range], teacher.term,
                            logSumExp: logSumExp[range], teacherLog: sums.teacherLog[range],
                            studentLog: sums.studentLog[range], scale: factor, into: gradient.columns(0..<entries))
                    } else {
                        try backend.crossEntropyBackward(
                            own.columns(0..<entries + 1), targets: places.local[range], logSumExp: logSumExp[range],
                            scale: factor, into: gradient.columns(0..<entries + 1))
                    }
                    try local.backward(
                        gradient.columns(0..<entries), x.tensor[range], into: dx?[range], adds: adds, backend)
                }
            }
            if x.needsGradient {
                try flow.accumulate(into: x, overChunks)
            } else {
                try overChunks(nil, false)
            }
        }
        return LanguageModelLoss.Result(total: loss, perToken: perToken, divergence: divergence)
    }

    public func ownLogits(_ x: Tensor, _ backend: any Backend) throws -> Tensor { try local.logits(x, backend) }

    /// Logits (T, V) `f32` of hidden states (T, D), of all ranks: for generation, not for training.
    public func logits(_ x: Tensor, _ backend: any Backend) throws -> Tensor {
        let all = try backend.zeros(Shape(x.shape[0], vocabulary), .f32)
        let own = try local.logits(x, backend)
        try backend.copy(own, into: all.columns(group.ownShare(ofVocabulary: vocabulary)))
        return try backend.arrived(group.startAllReduce(all, into: all, after: backend.stream))
    }

    /// Where each target is.
    private struct Places {
        /// (T) `i32`: the entry here, L when it is elsewhere, -1 when it is ignored.
        let local: Tensor
        /// (T) `i32`: the rank that has it, -1 when it is ignored.
        let owner: Tensor
        /// (T) `i32`: the token's own number when its target is here, -1 otherwise.
        let own: Tensor

        init(_ targets: Tensor, vocabulary: Int, group: any Collective, _ backend: any Backend) throws {
            let share = group.ownShare(ofVocabulary: vocabulary)
            let ids = try backend.array(targets, of: Int32.self)
            func index(_ place: (_ token: Int, _ id: Int) -> Int) throws -> Tensor {
                let values = ids.enumerated().map { $1 < 0 ? -1 : Int32(place($0, Int($1))) }
                return try backend.tensor(values, Shape(values.count))
            }
            local = try index { share.contains($1) ? $1 - share.lowerBound : share.count }
            owner = try index { group.owner(of: $1, inVocabulary: vocabulary) }
            own = try index { share.contains($1) ? $0 : -1 }
        }
    }

    /// This rank's logits with the column of nothing behind them: (T, L + margin).
    private func paddedLogits(_ x: Tensor, _ backend: any Backend) throws -> Tensor {
        let tokens = x.shape[0]
        let width = (entries + Self.margin) / Self.margin * Self.margin
        let logits = try backend.empty(Shape(tokens, width), .f32)
        let nothing = try backend.empty(Shape(tokens, 1), .f32, .workspace)
        try backend.fill(nothing, with: Self.nothing)
        try backend.copy(nothing, into: logits.columns(entries..<entries + 1))
        try local.weight.withWeights(on: backend.stream) {
            try backend.matMul(x.matrix, $0.transpose, into: logits.columns(0..<entries))
        }
        return logits
    }

    /// Each token's loss and log of the sum of exponentials over the whole vocabulary, of those over each rank's share.
    private func reduce(
        _ ownLoss: Tensor, _ ownLog: Tensor, _ places: Places, _ backend: any Backend
    ) throws -> (perToken: Tensor, logSumExp: Tensor) {
        let (tokens, ranks) = (ownLoss.count, group.size)
        let table = try backend.zeros(Shape(tokens, ranks + 1), .f32)
        try backend.copy(ownLog.reshaped(tokens, 1), into: table.columns(group.rank..<group.rank + 1))
        try backend.gatherRows(
            ownLoss.reshaped(tokens, 1), index: places.own, scale: nil, into: table.columns(ranks..<ranks + 1))
        let all = try backend.arrived(group.startAllReduce(table, into: table, after: backend.stream))
        let perToken = try backend.empty(Shape(tokens), .f32)
        let logSumExp = try backend.empty(Shape(tokens), .f32)
        try backend.crossEntropy(
            all.columns(0..<ranks), targets: places.owner, loss: perToken, logSumExp: logSumExp)
        let within = try backend.empty(Shape(tokens, 1), .f32, .workspace)
        try backend.copy(all.columns(ranks..<ranks + 1), into: within)
        try backend.add(perToken, within.reshaped(tokens), into: perToken)
        return (perToken, logSumExp)
    }

    /// The sums over the whole vocabulary, of those over each rank's share: the mean under the teacher's distribution is
    /// that of the ranks' means, each with the teacher's share of its rank.
    private func reduce(_ own: DivergenceSums, _ backend: any Backend) throws -> DivergenceSums {
        let (tokens, ranks) = (own.difference.count, group.size)
        let table = try backend.zeros(Shape(tokens, 3 * ranks), .f32)
        for (column, values) in [own.teacherLog, own.studentLog, own.difference].enumerated() {
            let place = column * ranks + group.rank
            try backend.copy(values.reshaped(tokens, 1), into: table.columns(place..<place + 1))
        }
        let all = try backend.arrived(group.startAllReduce(table, into: table, after: backend.stream))
        let sums = try DivergenceSums(tokens: tokens, backend)
        try backend.logSumExp(all.columns(0..<ranks), into: sums.teacherLog)
        try backend.logSumExp(all.columns(ranks..<2 * ranks), into: sums.studentLog)
        let shares = try backend.empty(Shape(tokens, ranks), .f32)
        let means = try backend.empty(Shape(tokens, ranks), .f32)
        try backend.softmax(all.columns(0..<ranks), into: shares)
        try backend.copy(all.columns(2 * ranks..<3 * ranks), into: means)
        try backend.multiply(shares, means, into: means)
        let ones = try backend.empty(Shape(ranks, 1), .f32)
        try backend.fill(ones, with: 1)
        try backend.matMul(means.matrix, ones.matrix, into: sums.difference.reshaped(tokens, 1))
        return sums
    }
}
