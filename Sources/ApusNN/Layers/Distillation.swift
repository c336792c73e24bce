public import ApusKernels
public import ApusTensor

// Shape letters: T tokens, V vocabulary, L entries of it on this rank, D the teacher's width.

/// What a student is held to in one pass: the teacher's last hidden states of the same tokens, and the product that makes
/// logits of them, so that the teacher's logits exist for a chunk of tokens at a time as the student's do.
public struct TeacherStates {
    /// (T, D), normalised.
    public let states: Tensor
    /// The teacher's head, with the same entries of the same vocabulary as the student's.
    public let head: any LossLayer
    /// How the divergence joins the loss.
    public let term: DistillationTerm

    /// What the teacher says of T tokens.
    public init(states: Tensor, head: any LossLayer, term: DistillationTerm) {
        self.states = states
        self.head = head
        self.term = term
    }

    /// Its logits of some tokens, (t, L) `f32`.
    public func logits(_ tokens: Range<Int>, _ backend: any Backend) throws -> Tensor {
        try head.ownLogits(states[tokens], backend)
    }
}

/// The two distributions of each token, in what their divergence is made of: each (T) `f32`, 0 where the target is
/// negative. See ``DistillationOp/divergence(teacher:student:targets:temperature:difference:teacherLog:studentLog:)``.
public struct DivergenceSums {
    /// The mean difference of the logits under the teacher's distribution.
    public var difference: Tensor
    /// The log of the teacher's sum of exponentials.
    public var teacherLog: Tensor
    /// That of the student's.
    public var studentLog: Tensor

    /// Room for T tokens.
    public init(tokens: Int, _ backend: any Backend) throws {
        func vector() throws -> Tensor { try backend.empty(Shape(tokens), .f32) }
        (difference, teacherLog, studentLog) = (try vector(), try vector(), try vector())
    }

    /// Fills the places of some tokens from their logits, (t, L) each.
    public func measure(
        _ range: Range<Int>, teacher: Tensor, student: Tensor, targets: Tensor, _ term: DistillationTerm,
        _ backend: any Backend
    ) throws {
        try backend.divergence(
            teacher: teacher, student: student, targets: targets[range], temperature: term.temperature,
            difference: difference[range], teacherLog: teacherLog[range], studentLog: studentLog[range])
    }

    /// Each token's divergence in nats, (T).
    public func divergence(_ backend: any Backend) throws -> Tensor {
        let result = try backend.empty(difference.shape, .f32)
        try backend.add(difference, studentLog, into: result)
        try backend.addScaled(teacherLog, factor: -1, into: result)
        return result
    }
}

extension LanguageModelLoss.Result {
    /// The tensor that a loss's node has for its output, `scale` times the sum of the tokens' cross-entropies, and of their
    /// divergences times the term's weight.
    public static func total(
        _ perToken: Tensor, _ divergence: Tensor?, _ term: DistillationTerm?, scale: Float, _ backend: any Backend
    ) throws -> Tensor {
        let total = try backend.empty(Shape(1), .f32)
        try backend.sum(perToken, factor: scale, into: total)
        guard let divergence, let term else { return total }
        let apart = try backend.empty(Shape(1), .f32)
        try backend.sum(divergence, factor: scale * term.weight, into: apart)
        try backend.add(total, apart, into: total)
        return total
    }
}
