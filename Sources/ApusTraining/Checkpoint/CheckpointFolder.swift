public import ApusKernels
public import ApusModels
import ApusNN
public import ApusOptim
public import ApusTensor

/// The checkpoints of a run, `<run>/checkpoints/step-00000500` and so on.
///
/// Each is a folder that appears whole or not at all: weights and `config.json` in the form every command reads,
/// the optimizer's state, the run's state, and checksums of all of them. The newest that passes its checksums counts.
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

    /// Writes a checkpoint and removes those beyond ``keep``, oldest first, once the new one is safe.
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
        if let place = try model.firstNonFiniteWeight(backend: backend) {
            throw NonFiniteWeightsError(step: state.step, place: place)
        }
        try RunFolder.create(path)
        // A killed run may have been saving another step: each leaves as much as a checkpoint.
        _ = try? AbandonedFiles.remove(in: path, prefix: "step-")
        let directory = try AtomicDirectory(path: folder(step: state.step))
        let staging = directory.stagingPath
        var digests = try model.write(toFolder: staging, as: nil, backend: backend)
        let states = optimizer.namedStates()
        let specs = states.map { TensorSpec(name: $0.name, dtype: $0.tensor.dtype, shape: $0.tensor.shape.dimensions) }
        var writer = try ShardedSafetensorsWriter(folder: staging, base: "optimizer", tensors: specs)
        for (name, tensor) in states { try writer.append(tensor, to: name, backend: backend) }
        digests.merge(try writer.finish()) { first, _ in first }
        digests.merge(try CompanionFiles.write(companions, to: staging)) { first, _ in first }
        digests["state.txt"] = try AtomicFile.write(state.text, to: "\(staging)/state.txt")
        try CheckpointManifest(files: digests).write(toFolder: staging)
        try directory.publish(.replace)
        for step in removing where step != state.step { try? RunFolder.remove(folder(step: step)) }
        guard prunes else { return }
        for step in steps().dropLast(keep) where step != state.step { try? RunFolder.remove(folder(step: step)) }
    }

    /// The newest checkpoint whose files pass their checksums, and what was wrong with newer ones.
    public func newestGood() -> (step: Int?, damaged: [String]) {
        let (step, damaged) = RunFolder.newestGood(in: path)
        return (step, damaged.map { "\($0)" })
    }

    /// The state of the run at a step.
    public func state(step: Int) throws -> TrainingState {
        let file = "\(folder(step: step))/state.txt"
        let text = try FileContents(path: file).text
        return try TrainingState(text: text, path: file)
    }

    /// Loads weights and optimizer state of a step into a model that computes the same.
    ///
    /// - Returns: what the model's configuration says otherwise than the checkpoint's about learning alone.
    /// - Throws: ``FileError``, ``TensorMapError``, ``TrainingCheckpointError``.
    @discardableResult
    public func load(
        step: Int, into model: Transformer, _ optimizer: AdamW, backend: any Backend
    ) throws -> [LearningChange] {
        let folder = folder(step: step)
        let saved = try ModelFolder(folder, further: model.furtherParameters)
        let (comparable, changes) = saved.configuration.configuration.learning(as: model.configuration)
        if let difference = comparable.firstDifference(from: model.configuration) {
            throw TrainingCheckpointError.different(
                folder: folder, what: difference.what, saved: difference.saved, asked: difference.asked)
        }
        try saved.loadWeights(into: model.store, backend: backend)
        let file = try ShardedSafetensors(folder: folder, base: "optimizer")
        for (name, tensor) in optimizer.namedStates() { try file.read(name, into: tensor, backend: backend) }
        try optimizer.resume(atStep: step, backend: backend)
        return changes
    }
}

extension ModelConfiguration {
    /// The first line in which the two configurations' files differ.
    func firstDifference(from other: ModelConfiguration) -> (what: String, saved: String, asked: String)? {
        guard self != other else { return nil }
        let (left, right) = (json().split(separator: "\n"), other.json().split(separator: "\n"))
        for (saved, asked) in zip(left, right) where saved != asked {
            return ("a model that says", saved.trimmed, asked.trimmed)
        }
        return ("a model of", "\(left.count) settings", "\(right.count)")
    }
}

extension Substring {
    /// Without spaces before and a comma behind.
    fileprivate var trimmed: String { String(drop { $0 == " " }.reversed().drop { $0 == "," }.reversed()) }
}
