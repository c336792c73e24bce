import ArgumentParser

/// `apus distill`: a run from a recipe whose model also learns from another.
struct Distill: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Train a student as a recipe says, held to what a teacher says of the same text.",
        discussion: """
            The same as `apus train` with distillation.teacher set. The other keys of the recipe's group distillation say \
            how much the divergence counts (weight, temperature), until which step and how it ends (until, ending: stop or \
            decay), and what the student begins with (start: random or teacher, layers).

            Example:
              apus distill runs/teacher student.yaml --set distillation.until=4000 --out runs/student
            """)

    @Argument(help: "The teacher: the folder of a run, a checkpoint or a Hugging Face model.")
    var teacher: String

    @OptionGroup var train: Train

    func validate() throws { try train.validate() }

    func run() throws {
        var train = train
        train.set = ["distillation.teacher=\(Self.quoted(teacher))"] + train.set
        try train.run()
    }

    /// Any path as one YAML scalar.
    private static func quoted(_ path: String) -> String { "'" + path.replacing("'", with: "''") + "'" }
}
