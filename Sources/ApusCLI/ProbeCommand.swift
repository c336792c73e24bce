import ApusKernels
import ApusModels
import ApusTraining
import ArgumentParser

/// `apus probe`: small synthetic tasks, to compare routers and blocks in minutes.
struct ProbeCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "probe", abstract: "Compare models by small synthetic tasks, in minutes.",
        discussion: """
            Trains each model anew on each task and prints the share of answers that are right on new sequences. Of a \
            recipe only its model counts, with the tasks' vocabulary in place of its own; nothing is written.

            The tasks: recall (values of keys in the same sequence), memorise (values of keys of one dictionary), \
            compress (a sequence through one state), copy (symbols among blanks, in their order).

            Example:
              apus probe Recipes/quickstart.yaml Recipes/hybrid.yaml
              apus probe Recipes/hybrid.yaml --task recall --steps 500 --set model.width=64
            """)

    @Argument(help: "Recipes, whose models are compared.")
    var recipes: [String] = []

    @Option(name: .long, help: "A preset to compare. May be given several times.")
    var preset: [String] = []

    @Option(name: .long, help: "Override a key of every recipe: dotted.key=value. May be given several times.")
    var set: [String] = []

    @Option(name: .long, help: "recall, memorise, compress or copy (default: all). May be given several times.")
    var task: [String] = []

    @Option(help: "Steps for each task.")
    var steps = ProbeSettings().steps

    @Option(help: "Sequences of a step.")
    var batch = ProbeSettings().batch

    @Option(help: "Tokens of a sequence.")
    var length = ProbeSettings().length

    @Option(help: "Different symbols.")
    var symbols = ProbeSettings().symbols

    @Option(help: "Learning rate.")
    var learningRate = ProbeSettings().learningRate

    @Option(help: "Seed of weights and sequences.")
    var seed: UInt64 = 0

    @Option(help: "Threads (default: one for each core).")
    var threads: Int?

    @Flag(help: "Print one JSON object.")
    var json = false

    func validate() throws {
        if recipes.isEmpty && preset.isEmpty {
            throw ValidationError("no model is named: give a recipe, or --preset NAME")
        }
        let names = ProbeTask.allCases.map(\.rawValue)
        if let unknown = task.first(where: { !names.contains($0) }) {
            throw ValidationError("--task is '\(unknown)'; it must be one of \(names.joined(separator: ", "))")
        }
        if let threads { try requireSizes(("threads", threads)) }
    }

    /// A model and what the table calls it.
    private struct Candidate {
        let name: String
        let model: ModelConfiguration
        var outcomes: [Probe.Outcome] = []
    }

    func run() throws {
        let backend = try DeviceChoice.cpu.backend(threads: threads, memoryLimit: nil)
        let probe = try Probe(
            ProbeSettings(
                steps: steps, batch: batch, length: length, symbols: symbols, learningRate: learningRate, seed: seed),
            backend: backend)
        var candidates = try recipes.map { path in
            Candidate(name: path, model: probe.model(of: try Recipe(contentsOf: path, overrides: set).model))
        }
        candidates += try preset.map { name in
            Candidate(name: name, model: probe.model(of: try ModelConfiguration.preset(named: name)))
        }
        for index in candidates.indices {
            for task in tasks {
                candidates[index].outcomes.append(try probe.run(task, candidates[index].model))
            }
        }
        Console.line(json ? "\(object(candidates))" : text(candidates))
    }

    /// Each task once, in one order.
    private var tasks: [ProbeTask] { ProbeTask.allCases.filter { task.isEmpty || task.contains($0.rawValue) } }

    private func text(_ candidates: [Candidate]) -> String {
        let head = ["model", "parameters"] + tasks.map(\.rawValue)
        let rows = candidates.map { candidate in
            [candidate.name, grouped(candidate.model.parameterCounts().total)]
                + candidate.outcomes.map { percent($0.accuracy) }
        }
        let chance = (candidates.first?.outcomes ?? []).map { percent($0.chance) }
        return table([head] + rows + [["guessing", ""] + chance])
    }

    private func percent(_ share: Double) -> String { "\(fixed(100 * share, 1)) %" }

    private func object(_ candidates: [Candidate]) -> JSONText {
        .object([
            ("steps", .integer(steps)), ("batch", .integer(batch)), ("length", .integer(length)),
            ("symbols", .integer(symbols)), ("learning_rate", .number(learningRate)), ("seed", .string("\(seed)")),
            (
                "models",
                .array(
                    candidates.map { candidate in
                        let counts = candidate.model.parameterCounts()
                        return .object([
                            ("name", .string(candidate.name)), ("parameters", .integer(counts.total)),
                            ("active_parameters", .integer(counts.active)),
                            ("tasks", .array(candidate.outcomes.map(object))),
                        ])
                    })
            ),
        ])
    }

    private func object(_ outcome: Probe.Outcome) -> JSONText {
        .object([
            ("task", .string(outcome.task.rawValue)), ("accuracy", .number(outcome.accuracy)),
            ("chance", .number(outcome.chance)), ("loss", .number(outcome.loss)),
        ])
    }
}
