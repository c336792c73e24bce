import ArgumentParser

/// `apus bench`: speed and memory of parts and of the whole.
struct Bench: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Measure products, a MoE layer, a training step, or generation.",
        discussion: """
            Figures count only on a machine that does nothing else.

            Example:
              apus bench train --precision bf16
              apus bench moe-layer --tokens 4096 --experts 64 --choices 8 --routing zipf
            """,
        subcommands: [BenchGEMM.self, BenchMoELayer.self, BenchTrain.self, BenchGenerate.self])
}

/// What every benchmark takes.
struct BenchOptions: ParsableArguments {
    @Option(help: "Threads (default: one for each core that this process may use).")
    var threads: Int?

    @Option(help: "f32 or bf16.")
    var precision = ModelPrecision.f32

    @Flag(help: "Print one JSON object.")
    var json = false

    func validate() throws {
        if let threads, !(1...1024).contains(threads) { throw ValidationError("--threads must lie in 1 ... 1024") }
    }
}

/// Refuses numbers below 1, by option.
func requirePositive(_ options: (name: String, value: Int)...) throws {
    for option in options where option.value < 1 {
        throw ValidationError("--\(option.name) is \(option.value); it must be at least 1")
    }
}
