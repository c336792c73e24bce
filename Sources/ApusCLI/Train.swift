import ApusCollectives
import ApusKernels
import ApusModels
import ApusNN
import ApusParallel
import ApusTensor
import ApusTraining
import ArgumentParser

/// `apus train`: a run from a recipe.
struct Train: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Train a model as a recipe says.",
        discussion: """
            Writes metrics.jsonl, TensorBoard's event files, the resolved recipe and checkpoints below --out. Ctrl-C \
            saves and says how to go on, as do SIGTERM and SIGHUP.

            Example:
              apus train Recipes/quickstart.yaml --set data.path=book.txt --out runs/book
            """)

    @Argument(help: "A recipe: one YAML file for model, data, training and output.")
    var recipe: String

    @Option(name: .long, help: "Override a key: dotted.key=value. May be given several times.")
    var set: [String] = []

    @Option(help: "The folder of the run (default: runs/<name of the recipe>).")
    var out: String?

    @Option(help: "Steps to train, instead of the recipe's.")
    var steps: Int?

    @Option(help: "Where to compute: auto, cpu or cuda.")
    var device = DeviceChoice.automatic

    @Option(help: "Write the times of a few steps as a Chrome trace, for ui.perfetto.dev or chrome://tracing.")
    var trace: String?

    @Option(help: "Steps in the trace, after \(TraceFile.warmUp) that are left out.")
    var traceSteps = 3

    @Flag(help: "Continue the run in --out from its newest good checkpoint.")
    var resume = false

    @Flag(help: "Continue the run in --out as --resume does, or begin it: for jobs that are started again.")
    var resumeOrBegin = false

    func validate() throws { try requireSizes(("trace-steps", traceSteps)) }

    func run() throws {
        Interruption.outliveReaders()
        let overrides = set + (steps.map { ["training.steps=\($0)"] } ?? [])
        // Before anybody waits for anybody: a recipe that cannot be read is told of at once.
        let recipe = try World.prepare { try Recipe(contentsOf: self.recipe, overrides: overrides) }
        try World.run(timeout: .seconds(recipe.parallel.timeout)) { try train(recipe, on: $0) }
    }

    /// This rank's part of the run. The first rank tells of it.
    private func train(_ recipe: Recipe, on world: any Collective) throws {
        let folder = out ?? "runs/\(recipeName)"
        let backend = try device.backend(
            over: world, threads: recipe.training.threads ?? World.threadsPerRank,
            memoryLimit: recipe.training.memoryLimit,
            deterministic: recipe.training.deterministic)
        try device.exchanging(backend, over: world) { try train(recipe, folder: folder, on: backend, $0) }
    }

    private func train(
        _ recipe: Recipe, folder: String, on backend: any Backend, _ world: any Collective
    ) throws {
        let resumes = resume || resumeOrBegin && !CheckpointFolder(run: folder).steps().isEmpty
        let training = try TrainingRun(recipe, folder: folder, resumes: resumes, backend: backend, world: world)
        let tells = world.rank == 0
        training.traceFile = try trace.map { try TraceFile(path: $0, steps: traceSteps, writes: tells) }
        if tells { Console.line(summary(training, folder: folder)) }
        Interruption.listen()
        let outcome = try outcome(of: training, folder: folder)
        guard tells else { return }
        switch outcome {
        case .finished:
            if !training.loadTable.isEmpty { Console.line("\n\(training.loadTable)") }
            Console.line("\nweights: \(training.checkpoint)\nmetrics: \(folder)/metrics.jsonl")
            if let trace { Console.line("trace:   \(trace)") }
        case .interrupted(let step):
            Console.line(
                "\nstopped after step \(step), saved in \(training.checkpoint); continue with:\n  \(resumeCommand(folder))"
            )
        }
    }

    /// Runs to the end; an error also says what is saved and how to go on.
    private func outcome(of training: TrainingRun, folder: String) throws -> TrainingRun.Outcome {
        do {
            return try training.run()
        } catch {
            throw CommandError("\(error)\n\(whatIsSaved(training, folder, after: "\(error)"))")
        }
    }

    private func whatIsSaved(_ training: TrainingRun, _ folder: String, after error: String) -> String {
        let reason = training.savingError.map { "\($0)" }.flatMap { $0 == error ? nil : $0 }
        let failure = reason.map { "step \(training.stepsTaken) could not be saved: \($0)\n" } ?? ""
        guard let saved = training.savedStep, let checkpoint = training.savedCheckpoint else {
            return failure + "no checkpoint was saved; the run begins anew without --resume"
        }
        let earlier = training.earlierCheckpoint.map {
            "\nif step \(saved) has gone astray already, remove its folder to continue from '\($0)'"
        }
        return failure + "step \(saved) is saved in '\(checkpoint)'; continue with:\n  "
            + resumeCommand(folder) + (earlier ?? "")
    }

    private var recipeName: String {
        let file = recipe.split(separator: "/").last.map(String.init) ?? "run"
        return file.hasSuffix(".yaml") ? String(file.dropLast(5)) : file
    }

    private func summary(_ training: TrainingRun, folder: String) -> String {
        let counts = training.recipe.model.parameterCounts()
        let data = training.recipe.data
        return """
            model    \(counts.total) parameters, \(counts.active) active for a token
            \(training.recipe.model.patches == nil ? "text  " : "images")   \(data.sources.map(\.path).joined(separator: " + ")), \(training.trainingTokens) tokens
            run      \(folder), steps \(training.stepsTaken + 1) to \(training.recipe.training.steps), \
            \(training.recipe.training.batch) sequences of \(data.sequenceLength) each, \
            \(training.recipe.training.precision.rawValue)\(layout(training))
            """
    }

    private func layout(_ training: TrainingRun) -> String {
        training.layout.map { "\nlayout   \($0), ZeRO-\(training.recipe.parallel.zero.rawValue)" } ?? ""
    }

    private func resumeCommand(_ folder: String) -> String {
        let settings = set.flatMap { ["--set", $0] } + (steps.map { ["--steps", String($0)] } ?? [])
        let words = ["apus", "train", recipe] + settings + ["--out", folder, "--resume"]
        return words.map(shellWord).joined(separator: " ")
    }

    /// A word as a shell reads it back: quoted where it holds anything but letters, digits and `-_./=,:`.
    private func shellWord(_ word: String) -> String {
        let isPlain =
            !word.isEmpty && word.allSatisfy { $0.isASCII && ($0.isLetter || $0.isNumber || "-_./=,:".contains($0)) }
        return isPlain ? word : "'" + word.replacing("'", with: "'\\''") + "'"
    }
}
