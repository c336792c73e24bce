public import ApusCollectives
public import ApusKernels
public import ApusModels
import ApusNN
public import ApusOptim
import ApusTensor

// Finding and loading checkpoints, on one rank or on many that come to the same outcome.

extension CheckpointFolder {
    /// The newest checkpoint whose files pass their checksums, and what was wrong with newer ones.
    public func newestGood() -> (step: Int?, damaged: [String]) {
        let (step, damaged) = RunFolder.newestGood(in: path)
        return (step, damaged.map { "\($0)" })
    }

    /// The same for all ranks of `world`, each of which reads a share of the files; `nil` for this rank alone.
    ///
    /// - Throws: ``CollectiveError``.
    public func newestGood(over world: (any Collective)?) throws -> (step: Int?, damaged: [String]) {
        guard let world, world.size > 1 else { return newestGood() }
        var damaged: [String] = []
        let steps = try world.first(world.rank == 0 ? steps().map(String.init).joined(separator: " ") : nil)
        for step in (steps ?? "").split(separator: " ").compactMap({ Int($0) }).reversed() {
            let folder = folder(step: step)
            let check = FileThread.run { [rank = world.rank, size = world.size] in
                let files = try CheckpointManifest(folder: folder).files.sorted { $0.key < $1.key }
                let share = files.enumerated().filter { $0.offset % size == rank }.map(\.element)
                try CheckpointManifest(files: Dictionary(share) { first, _ in first }).verify(folder: folder)
            }
            try world.waitForAll(check)
            var reason: String?
            do { try check.wait() } catch { reason = "\(error)" }
            guard let first = try world.first(reason) else { return (step, damaged) }
            damaged.append(first)
        }
        return (nil, damaged)
    }

    /// The state of the run at a step.
    ///
    /// - Throws: ``FileError``, ``TrainingCheckpointError``.
    public func state(step: Int) throws -> TrainingState {
        let file = "\(folder(step: step))/state.txt"
        let text = try FileContents(path: file).text
        return try TrainingState(text: text, path: file)
    }

    /// The same for all ranks of `world`, read by the first; `nil` for this rank alone.
    ///
    /// - Throws: ``RankFailures`` on all ranks, ``TrainingCheckpointError``, ``CollectiveError``.
    public func state(step: Int, over world: (any Collective)?) throws -> TrainingState {
        guard let world, world.size > 1 else { return try state(step: step) }
        let file = "\(folder(step: step))/state.txt"
        let text = try world.agree(on: "reading '\(file)'") {
            world.rank == 0 ? try FileContents(path: file).text : nil
        }
        return try TrainingState(text: world.first(text) ?? "", path: file)
    }

    /// Loads weights and optimizer state of a step into a model that computes the same, or this rank's part of it, whatever
    /// layout saved them: each rank reads what it holds, one tensor after the other.
    ///
    /// - Parameter world: The ranks that load together, and fail together; `nil` for this one alone.
    /// - Returns: what the model's configuration says otherwise than the checkpoint's about learning alone.
    /// - Throws: ``FileError``, ``TensorMapError``, ``TrainingCheckpointError``; of several ranks ``RankFailures``, unless
    ///   all have the same error; ``CollectiveError``.
    @discardableResult
    public func load(
        step: Int, into model: Transformer, _ optimizer: AdamW, over world: (any Collective)? = nil,
        backend: any Backend
    ) throws -> [LearningChange] {
        guard let world else { return try loadOwn(step: step, into: model, optimizer, backend: backend) }
        return try world.agree(on: "loading '\(folder(step: step))'") {
            try loadOwn(step: step, into: model, optimizer, backend: backend)
        }
    }

    private func loadOwn(
        step: Int, into model: Transformer, _ optimizer: AdamW, backend: any Backend
    ) throws -> [LearningChange] {
        let folder = folder(step: step)
        let saved = try ModelFolder(folder, further: model.furtherParameters)
        let (comparable, changes) = saved.configuration.configuration.learning(as: model.configuration)
        if let difference = comparable.firstDifference(from: model.configuration) {
            throw TrainingCheckpointError.different(
                folder: folder, what: "a model that says", saved: "\"\(difference.key)\": \(difference.own)",
                asked: "\"\(difference.key)\": \(difference.other)")
        }
        try saved.loadWeights(into: model.store, backend: backend)
        let state = try StoredState(folder: folder)
        for piece in optimizer.statePieces() { try state.read(piece, backend: backend) }
        try optimizer.resume(atStep: step, backend: backend)
        return changes
    }
}
