public import ApusTensor
import CApusKernels

// Shape letters: T tokens, V vocabulary, or those of its entries that a rank has.

/// How a student's distribution over the vocabulary is held to a teacher's (Hinton et al. 2015; DeepSpeed-MoE section 4.2).
public struct DistillationTerm: Sendable, Equatable {
    /// Factor on the divergence in the loss, temperature squared included: it multiplies a token's divergence in nats.
    public var weight: Float
    /// What logits are divided by before the softmax of both.
    public var temperature: Float

    /// A term of the loss.
    public init(weight: Float, temperature: Float) {
        self.weight = weight
        self.temperature = temperature
    }
}

/// A student's logits (T, V) `f32` beside a teacher's of the same entries, probabilities never stored.
///
/// Ranks that divide the vocabulary combine what each finds: sums of exponentials add, and the differences are averaged
/// with the teacher's shares as weights.
public protocol DistillationOp {
    /// For each token that counts, with `q = softmax(teacher / temperature)` over these entries:
    /// `teacherLog = logSumExp(teacher / temperature)`, `studentLog` likewise, and
    /// `difference = sum over v of q[v] * (teacher[v] - student[v]) / temperature`; each (T) `f32`.
    ///
    /// `KL(q || softmax(student / temperature)) = difference - teacherLog + studentLog`. All are 0 where the target is negative.
    func divergence(
        teacher: Tensor, student: Tensor, targets: Tensor, temperature: Float, difference: Tensor, teacherLog: Tensor,
        studentLog: Tensor) throws
    /// The gradient of `scale[0] * (cross-entropy + term.weight * divergence)`, both with sums over the whole vocabulary:
    ///
    /// `gradient[t, v] = scale[0] * (exp(student - logSumExp) - [v = target] + term.weight / term.temperature *
    /// (exp(student / term.temperature - studentLog) - exp(teacher / term.temperature - teacherLog)))`.
    ///
    /// It is `f32`, also `student` itself, or `bf16`; 0 for ignored rows. A target of V or more is another rank's.
    func distillationBackward(
        teacher: Tensor, student: Tensor, targets: Tensor, _ term: DistillationTerm, logSumExp: Tensor,
        teacherLog: Tensor, studentLog: Tensor, scale: Tensor, into gradient: Tensor) throws
}

extension CPUBackend: DistillationOp {
    public func divergence(
        teacher: Tensor, student: Tensor, targets: Tensor, temperature: Float, difference: Tensor, teacherLog: Tensor,
        studentLog: Tensor
    ) throws {
        precondition(teacher.shape == student.shape && teacher.dtype == .f32 && student.dtype == .f32)
        precondition(targets.count == student.shape[0])
        for tensor in [teacher, student, targets] { try tensor.waitUntilReady() }
        overRows(student.shape[0], width: student.rowCount) { range in
            let (from, to, begin) = (teacher[range], student[range], range.lowerBound)
            apus_divergence_f32(
                difference.pointer(to: Float.self) + begin, teacherLog.pointer(to: Float.self) + begin,
                studentLog.pointer(to: Float.self) + begin, from.pointer(), from.rowStride, to.pointer(), to.rowStride,
                targets.pointer(to: Int32.self) + begin, range.count, to.rowCount, 1 / temperature)
        }
    }

    public func distillationBackward(
        teacher: Tensor, student: Tensor, targets: Tensor, _ term: DistillationTerm, logSumExp: Tensor,
        teacherLog: Tensor, studentLog: Tensor, scale: Tensor, into gradient: Tensor
    ) throws {
        precondition(teacher.shape == student.shape && gradient.shape == student.shape)
        precondition(teacher.dtype == .f32 && student.dtype == .f32 && targets.count == student.shape[0])
        for tensor in [teacher, student, targets, logSumExp, teacherLog, studentLog, scale] {
            try tensor.waitUntilReady()
        }
        let factors = apus_distillation_factors(
            scale: scale.pointer(to: Float.self)[0], weight: term.weight / term.temperature,
            inverse: 1 / term.temperature)
        overRows(student.shape[0], width: student.rowCount) { range in
            let (from, own, to, begin) = (teacher[range], student[range], gradient[range], range.lowerBound)
            let sums = logSumExp.pointer(to: Float.self) + begin
            let (teacherSums, studentSums) = (
                teacherLog.pointer(to: Float.self) + begin, studentLog.pointer(to: Float.self) + begin
            )
            let wanted = targets.pointer(to: Int32.self) + begin
            switch gradient.dtype {
            case .f32:
                apus_distillation_backward_f32(
                    to.pointer(), to.rowStride, own.pointer(), own.rowStride, from.pointer(), from.rowStride, sums,
                    studentSums, teacherSums, wanted, range.count, own.rowCount, factors)
            case .bf16:
                apus_distillation_backward_f32_to_bf16(
                    to.pointer(), to.rowStride, own.pointer(), own.rowStride, from.pointer(), from.rowStride, sums,
                    studentSums, teacherSums, wanted, range.count, own.rowCount, factors)
            default: preconditionFailure("a gradient of \(gradient.dtype)")
            }
        }
    }
}
