import ApusModels

/// Reads `distillation`, where a recipe has it, and checks it against the student.
struct DistillationReader {
    let section: Section

    private static let mostSteps = 1_000_000_000

    /// `nil` where the recipe names no teacher.
    func distillation(layers: Int?) -> DistillationConfiguration? {
        guard section.value("teacher") != nil else {
            let others = RecipeKeys.keys(of: section.name).filter { section.value($0) != nil }
            if let key = others.first {
                section.flaw(key, "has no meaning without a teacher", "set distillation.teacher")
            }
            return nil
        }
        let teacher = section.text("teacher", example: "the folder of a model or a run")
        let until = section.optionalInteger("until", 1...Self.mostSteps, default: nil, example: 1000)
        let ending = section.choice("ending", default: DistillationConfiguration.Ending.stop)
        section.require(
            until != nil || section.value("ending") == nil, "ending", with: [section.full("until")],
            "has no meaning without an end", "set distillation.until, or leave it out")
        let start = section.choice("start", default: DistillationConfiguration.Start.random)
        let sources = section.integers("layers", 0...10_000, example: "[0, 2, 4]")?.values
        section.require(
            sources == nil || start == .teacher, "layers", with: [section.full("start")],
            "has no meaning with start random", "use start: teacher, or leave it out")
        if let sources, let layers {
            section.require(
                sources.count == layers, "layers", with: ["model.layers"],
                "names \(sources.count) of the teacher's layers for a student of \(layers)",
                "name one for each of the student's")
        }
        return DistillationConfiguration(
            teacher: teacher,
            weight: section.real("weight", .positiveFloat, default: 1, example: 1),
            temperature: section.real("temperature", .positiveFloat, default: 1, example: 2),
            until: until, ending: ending, start: start, layers: sources)
    }
}
