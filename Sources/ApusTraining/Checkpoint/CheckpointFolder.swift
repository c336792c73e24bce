public import ApusKernels
public import ApusModels
public import ApusOptim
public import ApusTensor

/// The checkpoints of a run, `<run>/checkpoints/step-00000500` and so on.
///
/// Each is a folder that appears whole or not at all: weights and `config.json` in the form every command reads,
/// the optimizer's state, the run's state, and checksums of all of them. The newest that passes its checksums counts.
/// Several ranks save together by a ``CheckpointSaver``; any number of them loads what any number saved.
public struct CheckpointFolder: Sendable {
    /// `<run>/checkpoints`.
    public let path: String
    /// Newest checkpoints that are kept.
    public let keep: Int

    /// The checkpoints of the run in `run`.
    public init(run: String, keep: Int = 2) {
        path = "\(run)/checkpoints"
        self.keep = max(keep, 1)
    }

    /// Steps of the checkpoints that are there, ascending.
    public func steps() -> [Int] { RunFolder.checkpointSteps(in: path) }

    /// The folder of the checkpoint of a step.
    public func folder(step: Int) -> String { RunFolder.checkpointName(step: step, in: path) }

    /// Writes a checkpoint of this rank alone and removes those beyond ``keep``, oldest first, once the new one is safe.
    ///
    /// - Parameters:
    ///   - companions: Files that belong to the model, by name: those of its tokenizer.
    ///   - removing: Steps whose checkpoints go as well: damaged ones that a resumed run has passed over.
    ///   - prunes: Whether those beyond ``keep`` are removed.
    /// - Throws: ``NonFiniteWeightsError`` for weights that are not numbers; ``FileError``. What was there
    ///   before is unharmed.
    public func save(
        _ model: Transformer, _ optimizer: AdamW, _ state: TrainingState, companions: [String: FileContents] = [:],
        removing: [Int] = [], prunes: Bool = true,
        backend: any Backend
    ) throws {
        try CheckpointSaver(self, model, optimizer, backend: backend)
            .save(state, companions: companions, removing: removing, prunes: prunes)
    }
}
