import ApusExperts
import ApusKernels
import ApusModels
import ApusTensor
import ApusTraining
import ArgumentParser

/// `apus inspect`: what is in a checkpoint.
struct Inspect: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Show what is in a checkpoint: sizes, tensors, and where its run stands.",
        discussion: """
            Weights are mapped and not read, except with --verify, which reads every file and compares its checksum.

            Example:
              apus inspect runs/quickstart --verify
              apus inspect ./Qwen3-30B-A3B --tensors
            """)

    @Argument(help: "A checkpoint, a run, or a Hugging Face folder.")
    var checkpoint: String

    @Flag(help: "List every tensor with its type and shape.")
    var tensors = false

    @Flag(help: "Read every file and compare it with its checksum.")
    var verify = false

    @Flag(help: "Print one JSON object.")
    var json = false

    func run() throws {
        let source = try Checkpoint(checkpoint)
        let files = try ShardedSafetensors(folder: source.folder)
        let state = try runState(source.folder)
        if verify {
            guard exists("\(source.folder)/\(CheckpointManifest.fileName)") else {
                throw CommandError(
                    "'\(source.folder)' has no \(CheckpointManifest.fileName) to verify with; only Apus' own checkpoints have"
                )
            }
            try CheckpointManifest(folder: source.folder).verify(folder: source.folder)
        }
        let summary = ModelSummary(source, files, state, isVerified: verify)
        print(json ? "\(summary.object(listsTensors: tensors))" : summary.text)
        if tensors, !json {
            let rows = files.shards.flatMap(\.entries).map {
                [$0.name, $0.stored.rawValue, "(" + $0.shape.map(String.init).joined(separator: ", ") + ")"]
            }
            print("\n" + table([["tensor", "dtype", "shape"]] + rows, leftColumns: 3))
        }
    }

    /// The state beside the weights of a run's checkpoint; `nil` of other folders.
    private func runState(_ folder: String) throws -> TrainingState? {
        let parts = folder.split(separator: "/", omittingEmptySubsequences: false)
        guard let name = parts.last, name.hasPrefix("step-"), let step = Int(name.dropFirst(5)),
            exists("\(folder)/state.txt")
        else { return nil }
        let run = parts.dropLast(2).joined(separator: "/")
        return try CheckpointFolder(run: run.isEmpty ? (folder.hasPrefix("/") ? "/" : ".") : run).state(step: step)
    }
}
