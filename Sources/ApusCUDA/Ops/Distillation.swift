public import ApusKernels
public import ApusTensor

// Shape letters: T tokens, V vocabulary.

extension CUDABackend: DistillationOp {
    public func divergence(
        teacher: Tensor, student: Tensor, targets: Tensor, temperature: Float, difference: Tensor, teacherLog: Tensor,
        studentLog: Tensor
    ) throws {
        precondition(teacher.shape == student.shape && teacher.dtype == .f32 && student.dtype == .f32)
        precondition(targets.count == student.shape[0])
        try launch(
            "divergence", .blocks(student.shape[0]), difference, teacherLog, studentLog, teacher, teacher.rowStride,
            student, student.rowStride, targets, student.rowCount, 1 / temperature)
    }

    public func distillationBackward(
        teacher: Tensor, student: Tensor, targets: Tensor, _ term: DistillationTerm, logSumExp: Tensor,
        teacherLog: Tensor, studentLog: Tensor, scale: Tensor, into gradient: Tensor
    ) throws {
        precondition(teacher.shape == student.shape && gradient.shape == student.shape)
        precondition(teacher.dtype == .f32 && student.dtype == .f32 && targets.count == student.shape[0])
        try launch(
            "distillation_backward_\(gradient.suffix)", .blocks(student.shape[0]), gradient, gradient.rowStride,
            student, student.rowStride, teacher, teacher.rowStride, logSumExp, studentLog, teacherLog, targets, scale,
            student.rowCount, term.weight / term.temperature, 1 / term.temperature)
    }
}
