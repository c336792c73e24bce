public import ApusKernels

/// What a student learns from beside the text: a recipe's group of keys `distillation`.
///
/// The loss is the cross-entropy and `weight * temperature^2 * KL(teacher || student)`, both softmaxes at the temperature
/// (Hinton et al. 2015), until the text alone is learned from (staged distillation, DeepSpeed-MoE section 4.2.2: a student
/// with fewer layers learns from its teacher first, and is held back by it later).
public struct DistillationConfiguration: Sendable, Equatable {
    /// What a student's weights begin with.
    public enum Start: String, Sendable, CaseIterable {
        /// Draws, as without a teacher.
        case random
        /// The teacher's weights.
        case teacher
    }

    /// How the term ends.
    public enum Ending: String, Sendable, CaseIterable {
        /// At once.
        case stop
        /// In a line from the first step on.
        case decay
    }

    /// The teacher: a folder of a run, a checkpoint or a Hugging Face model. Key `distillation.teacher`.
    public var teacher: String
    /// Factor on the divergence. Key `distillation.weight`.
    public var weight: Float
    /// What logits are divided by before both softmaxes. Key `distillation.temperature`.
    public var temperature: Float
    /// The last step that the teacher takes part in; `nil` for all. Key `distillation.until`.
    public var until: Int?
    /// How it ends there. Key `distillation.ending`.
    public var ending: Ending
    /// What the student begins with. Key `distillation.start`.
    public var start: Start
    /// The teacher's layer that each of the student's begins with; `nil` for layers spread evenly, first and last among
    /// them. Key `distillation.layers`.
    public var layers: [Int]?

    /// A teacher, whose divergence counts as much as the cross-entropy in all steps.
    public init(
        teacher: String, weight: Float = 1, temperature: Float = 1, until: Int? = nil, ending: Ending = .stop,
        start: Start = .random, layers: [Int]? = nil
    ) {
        self.teacher = teacher
        self.weight = weight
        self.temperature = temperature
        self.until = until
        self.ending = ending
        self.start = start
        self.layers = layers
    }

    /// The term of a step's loss; `nil` where the text alone is learned from.
    public func term(step: Int) -> DistillationTerm? {
        var share: Float = 1
        if let until {
            guard step <= until else { return nil }
            if ending == .decay { share = Float(until - step + 1) / Float(until) }
        }
        return DistillationTerm(weight: weight * temperature * temperature * share, temperature: temperature)
    }

    /// The teacher's layer that each of a student's begins with.
    public func sources(studentLayers: Int, teacherLayers: Int) -> [Int] {
        if let layers { return layers }
        guard studentLayers > 1 else { return [teacherLayers - 1] }
        // Rounded down, so that what is left out lies behind: the last layers of a pyramid are its largest.
        return (0..<studentLayers).map { $0 * (teacherLayers - 1) / (studentLayers - 1) }
    }
}
