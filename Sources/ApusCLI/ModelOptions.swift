import ApusKernels
import ArgumentParser

/// `--threads` and `--device`, which every command that computes has.
struct ComputeOptions: ParsableArguments {
    @Option(help: "Where to compute: auto, cpu or cuda.")
    var device = DeviceChoice.automatic

    @OptionGroup var threads: ThreadOptions

    /// The backend asked for.
    func backend(batchInvariant: Bool = false) throws -> any Backend {
        try device.backend(threads: threads.count, memoryLimit: nil, batchInvariant: batchInvariant)
    }
}

/// What the commands that run a model share: which one, how it reads text, and how it computes.
struct ModelOptions: ParsableArguments {
    @Argument(help: "A checkpoint, a run, or a Hugging Face folder.")
    var checkpoint: String

    @Option(help: "What a token is: bytes, a tokenizer.json, or a SentencePiece .model (default: the model's own).")
    var tokenizer: String?

    @Option(help: "Compute in f32 or bf16 (default: as the weights are stored).")
    var precision: ModelPrecision?

    @OptionGroup var compute: ComputeOptions

    @Flag(help: "Print one JSON object.")
    var json = false
}
