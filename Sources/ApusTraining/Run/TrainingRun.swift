public import ApusCollectives
import ApusData
import ApusExperts
public import ApusKernels
public import ApusModels
import ApusNN
import ApusOptim
public import ApusParallel
import ApusTensor

/// A run from recipe to weights: data, steps, evaluation, metrics and checkpoints.
public final class TrainingRun {
    /// What is trained, and how.
    public let recipe: Recipe
    /// Where everything is written.
    public let folder: String
    /// The model.
    public let model: Transformer
    /// Where the times of a few steps go; `nil` to take none.
    public var traceFile: TraceFile?
    private let backend: any Backend
    private let optimizer: AdamW
    private let trainStep: TrainStep
    private let data: TrainingData
    private let checkpoints: CheckpointFolder
    private let saver: CheckpointSaver
    /// A checkpoint that is being written while steps go on.
    private var pending: BackgroundSave?
    private let progress: ProgressLine
    private let ranks: RunRanks
    /// Held from here to the end of ``run()``.
    private var lock: RunLock?
    /// Steps whose result was seen. Those in ``steps`` come after them.
    private var taken = 0
    /// Steps that the device was given and that were not looked at yet.
    var steps: StepQueue<EnqueuedStep>
    /// On the first rank, which tells of all.
    private var log: RunLog?
    /// On the others.
    private var rankLog: RankLog?
    /// The exchanges of steps that were not looked at yet.
    private var collectives: [Int: CollectiveLedger] = [:]
    /// Tokens, or pixels, of the largest batch, or share of one, that is prepared ahead, some 100 MB.
    private static let mostTokensAhead = 1 << 23
    /// Damaged checkpoints that resuming passed over; the next save removes them.
    private var passedOver: [Int] = []
    /// The step of the newest checkpoint that is whole; `nil` while nothing was saved.
    public private(set) var savedStep: Int?
    /// Why the last attempt to save failed; `nil` when it did not.
    public private(set) var savingError: (any Error)?

    /// How a run ended.
    public enum Outcome: Sendable, Equatable {
        /// All steps were taken.
        case finished
        /// The user stopped it after this step, which is saved.
        case interrupted(step: Int)
    }

    /// Prepares a run: reads the text, builds the model, and loads the newest good checkpoint when `resumes`.
    ///
    /// - Parameter world: The ranks that take it together, as the recipe's layout says; each prepares its part.
    /// - Throws: ``DataError``, ``TensorError``, ``TrainingCheckpointError`` (also while another run writes into the
    ///   folder), ``FileError``; ``LayoutError`` for a layout that does not fit, ``RankDifference`` for ranks that were
    ///   started with different things.
    public init(
        _ recipe: Recipe, folder: String, resumes: Bool, backend: any Backend, world: any Collective = SingleRank()
    ) throws {
        self.recipe = recipe
        self.folder = folder
        self.backend = backend
        ranks = try RunRanks(recipe, world)
        steps = StepQueue(ranks: world.size, device: backend.stream.device)
        progress = ProgressLine(steps: recipe.training.steps, every: recipe.output.logEvery)
        checkpoints = CheckpointFolder(run: folder, keep: recipe.output.keep)
        if ranks.isFirst { lock = try RunLock.ifThere(folder) }
        if !resumes, !checkpoints.steps().isEmpty { throw TrainingCheckpointError.runExists(folder: folder) }
        data = try TrainingData(recipe)
        try world.requireSame("checksum \(data.checksum)", what: "text")
        var beginning = recipe
        // A resumed run's weights are its own; the folder that it began with may be gone.
        if resumes { beginning.training.start = nil }
        trainStep = try TrainStep(beginning, over: ranks.groups, backend: backend)
        (model, optimizer) = (trainStep.model, trainStep.optimizer)
        saver = try CheckpointSaver(checkpoints, model, optimizer, over: ranks.world, backend: backend)
        if resumes { try resume() }
    }

    /// Takes the steps that are left. Writes the resolved recipe, metrics and checkpoints.
    ///
    /// An error loses no step that was taken: they are saved before it is thrown, and ``savedStep`` says up to which.
    ///
    /// - Throws: ``NonFiniteError`` before a step that would spoil the weights, ``NonFiniteWeightsError`` when one has;
    ///   ``TensorError`` when memory runs out, ``MetricsFileError``; what saving throws.
    public func run() throws -> Outcome {
        defer { lock = nil }
        do {
            if ranks.isFirst {
                try RunFolder.create(folder)
                try secureFolder()
            }
            // The others write into it too.
            if ranks.world.size > 1 { try ranks.world.barrier() }
            return try takeSteps()
        } catch {
            // Ranks save together: only after what all of them have seen.
            if ranks.world.size == 1 || error is NonFiniteError { rescue() }
            throw error
        }
    }

    /// Another run may have made the folder since this one looked, or have left it with checkpoints of its own.
    private func secureFolder() throws {
        guard lock == nil else { return }
        lock = try RunLock(folder)
        if (checkpoints.steps().last ?? 0) > taken { throw TrainingCheckpointError.runExists(folder: folder) }
    }

    private func takeSteps() throws -> Outcome {
        if ranks.isFirst {
            _ = try AtomicFile.write(recipe.resolvedYAML(), to: "\(folder)/recipe.yaml")
            log = try RunLog(
                recipe, folder: folder, afterStep: taken, ranks: ranks.world.size, progress: progress, backend: backend)
        } else {
            rankLog = try RankLog(folder: folder, rank: ranks.world.rank, every: recipe.output.logEvery)
        }
        let passes = trainStep.microBatches
        let tokens = passes.reduce(0) { $0 + $1.count } * recipe.data.sequenceLength
        let values = tokens * (recipe.model.patches?.values ?? 1)
        let loader =
            values <= Self.mostTokensAhead
            ? BatchLoader(data.stream, batch: recipe.training.batch, parts: passes, firstStep: taken) : nil
        for step in stride(from: taken + 1, through: recipe.training.steps, by: 1) {
            steps.begin()
            ranks.beginStep()
            let trace = try traceFile?.trace(step: step, last: recipe.training.steps, on: backend, ranks)
            trace?.begin("step \(step)", .step)
            let read = try trace.span("data", .phase) { try reader(step: step, loader) }
            steps.append(
                try trainStep.enqueue(
                    step: step, sequenceLength: recipe.data.sequenceLength,
                    learningRate: recipe.training.learningRate.rate(step: step), trace: trace, read: read))
            let isLast = step == recipe.training.steps
            let news = try ranks.endStep(
                step, isStopped: Interruption.isRequested, isWritten: pending?.isWritten ?? true)
            collectives[step] = news.collectives
            for line in news.lines { note("warning: \(line)") }
            let isStopped = news.isStopped && !isLast
            let isDue = recipe.output.saveEvery > 0 && step % recipe.output.saveEvery == 0
            let isSaved = isDue || isStopped || isLast
            // What reads the weights between steps wants those of a step that is known to be good.
            try trace.span("read back", .phase) {
                let every = recipe.output.logEvery
                if isSaved || evaluates(after: step) { return try steps.drain() }
                try steps.advance(isShown: every > 0 && step % every == 0)
            }
            while let (step, seconds) = steps.next() { try finish(step, seconds: seconds, trace) }
            if pending != nil, news.isWritten { try trace.span("publish", .phase) { try finishSave() } }
            if isSaved {
                try trace.span("checkpoint", .phase) {
                    try beginSave()
                    if isStopped || isLast { try finishSave(waitsForRemoval: true) }
                }
            }
            trace?.end()
            try traceFile?.finished(step: step)
            if isStopped {
                try traceFile?.write()
                return .interrupted(step: step)
            }
        }
        if savedStep != taken {
            try beginSave()
            try finishSave(waitsForRemoval: true)
        }
        try traceFile?.write()
        return .finished
    }

    /// Looks at what a step came to, evaluates if that is due, and tells of it.
    private func finish(_ enqueued: EnqueuedStep, seconds: Double, _ trace: Trace?) throws {
        let result = try result(of: enqueued)
        let heldOutLoss = try evaluateIfDue(enqueued.step, trace)
        let exchanges = collectives.removeValue(forKey: enqueued.step).map(OperationTotals.init)
        try rankLog?.append(step: enqueued.step, seconds: seconds, exchanges, backend.allocator.statistics)
        guard let log else { return }
        var metrics = log.metrics(
            result, step: enqueued.step, learningRate: enqueued.learningRate, seconds: seconds)
        metrics.heldOutLoss = heldOutLoss
        metrics.collectives = exchanges?.rows ?? []
        try trace.span("metrics", .phase) { try log.append(metrics, result.routing) }
    }

    /// What a step came to, which makes it a step taken; a failure ends those after it too.
    private func result(of enqueued: EnqueuedStep) throws -> TrainStep.Result {
        do {
            let result = try enqueued.result()
            taken = enqueued.step
            return result
        } catch {
            steps.removeAll()
            throw error
        }
    }

    /// The loads of all experts over this run, as a table; empty for a dense model.
    public var loadTable: String { log?.table.text ?? "" }
    /// Where the newest weights are.
    public var checkpoint: String { checkpoints.folder(step: taken) }
    /// The newest checkpoint that is whole; `nil` while nothing was saved.
    public var savedCheckpoint: String? { savedStep.map(checkpoints.folder) }
    /// The checkpoint before ``savedCheckpoint``; `nil` when there is none.
    public var earlierCheckpoint: String? {
        savedStep.flatMap { saved in checkpoints.steps().last { $0 < saved } }.map(checkpoints.folder)
    }
    /// How the run is divided; `nil` on one rank.
    public var layout: Layout? { ranks.groups?.layout }
    /// Tokens that are trained on.
    public var trainingTokens: Int { data.tokens }
    /// Steps taken so far.
    public var stepsTaken: Int { taken }

    private func evaluates(after step: Int) -> Bool {
        data.heldOut != nil && (step % recipe.training.evaluateEvery == 0 || step == recipe.training.steps)
    }

    private func evaluateIfDue(_ step: Int, _ trace: Trace?) throws -> Double? {
        guard let heldOut = data.heldOut, evaluates(after: step) else { return nil }
        return try trace.span("evaluation", .phase) {
            try trainStep.evaluate(heldOut, batches: recipe.training.evaluateBatches)
        }
    }

    /// Reads the sequences of a step's batch: from those prepared ahead, or, where a batch is too large to be held whole,
    /// from the data as they are asked for.
    private func reader(step: Int, _ loader: BatchLoader?) throws -> TrainStep.Reader {
        if let loader {
            let parts = Dictionary(uniqueKeysWithValues: zip(trainStep.microBatches, try loader.next()))
            return { sequences in
                guard let part = parts[sequences] else { preconditionFailure("a step reads its passes' sequences") }
                return part
            }
        }
        let first = (step - 1) * recipe.training.batch
        return { [stream = data.stream] in try stream.sequences(first + $0.lowerBound..<first + $0.upperBound) }
    }

    /// Prints a line, once for all ranks.
    private func note(_ text: String) { if ranks.isFirst { progress.note(text) } }

    /// Begins to save the steps that were taken; ``finishSave(waitsForRemoval:)`` ends it, at a later step or at once.
    private func beginSave(prunes: Bool = true) throws {
        try finishSave()
        let state = TrainingState(step: taken, dataChecksum: data.checksum, settings: recipe.resumeSettings)
        do {
            pending = try saver.begin(
                state, companions: data.companions, removing: passedOver, prunes: prunes)
        } catch {
            savingError = error
            throw error
        }
    }

    /// Waits for the checkpoint that is being written, on all ranks, and makes it the newest.
    private func finishSave(waitsForRemoval: Bool = false) throws {
        guard let save = pending.take() else { return }
        do {
            try save.finish(waitsForRemoval: waitsForRemoval)
        } catch {
            savingError = error
            throw error
        }
        savingError = nil
        passedOver = []
        savedStep = save.step
    }

    /// Saves the steps since the last checkpoint after an error, when the weights are those of a whole step.
    ///
    /// The checkpoints before stay all: what led to the error may be in these weights already.
    private func rescue() {
        finishRest()
        if ranks.world.size == 1 { try? traceFile?.write() }
        try? finishSave()
        guard savingError == nil, taken > 0, savedStep != taken, optimizer.stepCount == taken else { return }
        try? beginSave(prunes: false)
        try? finishSave(waitsForRemoval: true)
    }

    /// Looks at the steps that were under way when something else failed, and tells of them if no line is missing before.
    private func finishRest() {
        try? steps.drain()
        while let (step, seconds) = steps.next() {
            guard let result = try? result(of: step) else { return }
            guard let log, log.lastStep == step.step - 1 else { continue }
            let metrics = log.metrics(
                result, step: step.step, learningRate: step.learningRate, seconds: seconds)
            try? log.append(metrics, result.routing)
        }
    }

    private func resume() throws {
        let (step, damaged) = try checkpoints.newestGood(over: ranks.world)
        for reason in damaged { note("warning: a checkpoint is damaged and passed over: \(reason)") }
        guard let step else { throw TrainingCheckpointError.nothingToResume(folder: folder) }
        let state = try checkpoints.state(step: step, over: ranks.world)
        for (key, asked) in recipe.resumeSettings.sorted(by: { $0.key < $1.key }) where state.settings[key] != asked {
            throw TrainingCheckpointError.different(
                folder: folder, what: key, saved: state.settings[key] ?? "unset", asked: asked)
        }
        guard state.dataChecksum == data.checksum else {
            throw DataError.changed(path: recipe.data.path, expected: state.dataChecksum, found: data.checksum)
        }
        let changes = try checkpoints.load(step: step, into: model, optimizer, over: ranks.world, backend: backend)
        for change in changes { note("continuing with \(change.key) \(change.now), was \(change.was)") }
        passedOver = checkpoints.steps().filter { $0 > step }
        taken = step
        savedStep = step
    }
}

extension Duration {
    /// The duration in seconds.
    var seconds: Double { Double(components.seconds) + Double(components.attoseconds) * 1e-18 }
}
