/// Why a model cannot teach another.
public enum DistillationError: Error, Sendable, Equatable {
    /// Its logits are of another vocabulary.
    case vocabulary(teacher: String, size: Int, student: Int)
    /// It does not read what the student reads: images, or patches of another size.
    case patches(teacher: String)
    /// It cannot see as far as the student does.
    case positions(teacher: String, positions: Int, sequence: Int)
    /// It has not the layer that one of the student's is to begin with.
    case noLayer(teacher: String, layer: Int, layers: Int)
    /// A parameter of the student's cannot begin with the teacher's.
    case start(teacher: String, parameter: String, shape: String, source: String, found: String?)
    /// The layout of the student's ranks is none of the teacher's.
    case layout(teacher: String, reason: String)
}

extension DistillationError: CustomStringConvertible {
    /// One line: what does not fit, and what would.
    public var description: String {
        switch self {
        case .vocabulary(let teacher, let size, let student):
            "distillation.teacher '\(teacher)' has a vocabulary of \(size), the student one of \(student): "
                + "a student takes its teacher's"
        case .patches(let teacher):
            "distillation.teacher '\(teacher)' has not the student's model.patches: a student reads what its teacher reads"
        case .positions(let teacher, let positions, let sequence):
            "distillation.teacher '\(teacher)' sees \(positions) tokens and data.sequence_length is \(sequence): "
                + "use at most \(positions)"
        case .noLayer(let teacher, let layer, let layers):
            "distillation.layers names layer \(layer) and '\(teacher)' has \(layers): the last is \(layers - 1)"
        case .start(let teacher, let parameter, let shape, let source, let found):
            "'\(parameter)' \(shape) cannot begin with '\(source)' of '\(teacher)', "
                + (found.map { "which is \($0)" } ?? "which is not there")
                + ": use a student of the teacher's sizes, or distillation.start random"
        case .layout(let teacher, let reason):
            "distillation.teacher '\(teacher)' does not fit the layout: \(reason)"
        }
    }
}
