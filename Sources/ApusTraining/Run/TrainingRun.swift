import ApusData
import ApusExperts
public import ApusKernels
public import ApusModels
import ApusNN
import ApusOptim
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
    private let progress: ProgressLine
    /// Held from here to the end of ``run()``.
    private var lock: RunLock?
    /// Steps whose result was seen. Those in ``steps`` come after them.
    private var taken = 0
    /// Steps that the device was given and that were not looked at yet.
    var steps = StepQueue<EnqueuedStep>()
    private var log: RunLog?
    /// Tokens of the largest batch that is prepared ahead, some 100 MB.
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
    /// - Throws: ``DataError``, ``TensorError``, ``TrainingCheckpointError`` (also while another run writes into the
    ///   folder), ``FileError``.
    public init(_ recipe: Recipe, folder: String, resumes: Bool, backend: any Backend) throws {
        self.recipe = recipe
        self.folder = folder
        self.backend = backend
        progress = ProgressLine(steps: recipe.training.steps, every: recipe.output.logEvery)
        checkpoints = CheckpointFolder(run: folder, keep: recipe.output.keep)
        lock = try RunLock.ifThere(folder)
        if !resumes, !checkpoints.steps().isEmpty { throw TrainingCheckpointError.runExists(folder: folder) }
        data = try TrainingData(recipe)
        trainStep = try TrainStep(recipe, backend: backend)
        (model, optimizer) = (trainStep.model, trainStep.optimizer)
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
            try RunFolder.create(folder)
            try secureFolder()
            return try takeSteps()
        } catch {
            rescue()
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
        _ = try AtomicFile.write(recipe.resolvedYAML(), to: "\(folder)/recipe.yaml")
        log = try RunLog(recipe, folder: folder, afterStep: taken, progress: progress, backend: backend)
        let batchTokens = recipe.training.batch * recipe.data.sequenceLength
        let loader =
            batchTokens <= Self.mostTokensAhead
            ? BatchLoader(data.stream, batch: recipe.training.batch, firstStep: taken) : nil
        for step in stride(from: taken + 1, through: recipe.training.steps, by: 1) {
            steps.begin()
            let trace = traceFile?.trace(step: step, last: recipe.training.steps, on: backend)
            trace?.begin("step \(step)", .step)
            let read = try trace.span("data", .phase) { try reader(step: step, loader) }
            steps.append(
                try trainStep.enqueue(
                    step: step, sequenceLength: recipe.data.sequenceLength,
                    learningRate: recipe.training.learningRate.rate(step: step), trace: trace, read: read))
            let isLast = step == recipe.training.steps
            let isStopped = Interruption.isRequested && !isLast
            let isDue = recipe.output.saveEvery > 0 && step % recipe.output.saveEvery == 0
            let isSaved = isDue || isStopped || isLast
            // What reads the weights between steps wants those of a step that is known to be good.
            try trace.span("read back", .phase) {
                let every = recipe.output.logEvery
                if isSaved || evaluates(after: step) { return try steps.drain() }
                try steps.advance(isShown: every > 0 && step % every == 0)
            }
            while let (step, seconds) = steps.next() { try finish(step, seconds: seconds, trace) }
            if isSaved { try trace.span("checkpoint", .phase) { try save() } }
            trace?.end()
            try traceFile?.finished(step: step)
            if isStopped {
                try traceFile?.write()
                return .interrupted(step: step)
            }
        }
        if savedStep != taken { try save() }
        try traceFile?.write()
        return .finished
    }

    /// Looks at what a step came to, evaluates if that is due, and tells of it.
    private func finish(_ enqueued: EnqueuedStep, seconds: Double, _ trace: Trace?) throws {
        let result = try result(of: enqueued)
        guard let log else { preconditionFailure("steps are taken after the log was opened") }
        var metrics = log.metrics(
            result, step: enqueued.step, learningRate: enqueued.learningRate, seconds: seconds)
        metrics.heldOutLoss = try evaluateIfDue(enqueued.step, trace)
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
            let (batch, length) = (try loader.next(), recipe.data.sequenceLength)
            return { batch[$0.lowerBound * length..<$0.upperBound * length] }
        }
        let first = (step - 1) * recipe.training.batch
        return { [stream = data.stream] in try stream.sequences(first + $0.lowerBound..<first + $0.upperBound) }
    }

    private func save(prunes: Bool = true) throws {
        let state = TrainingState(step: taken, dataChecksum: data.checksum, settings: recipe.resumeSettings)
        do {
            try checkpoints.save(
                model, optimizer, state, companions: data.companions, removing: passedOver, prunes: prunes,
                backend: backend)
        } catch {
            savingError = error
            throw error
        }
        savingError = nil
        passedOver = []
        savedStep = taken
    }

    /// Saves the steps since the last checkpoint after an error, when the weights are those of a whole step.
    ///
    /// The checkpoints before stay all: what led to the error may be in these weights already.
    private func rescue() {
        finishRest()
        try? traceFile?.write()
        guard savingError == nil, taken > 0, savedStep != taken, optimizer.stepCount == taken else { return }
        try? save(prunes: false)
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
        let (step, damaged) = checkpoints.newestGood()
        for reason in damaged { progress.note("warning: a checkpoint is damaged and passed over: \(reason)") }
        guard let step else { throw TrainingCheckpointError.nothingToResume(folder: folder) }
        let state = try checkpoints.state(step: step)
        for (key, asked) in recipe.resumeSettings.sorted(by: { $0.key < $1.key }) where state.settings[key] != asked {
            throw TrainingCheckpointError.different(
                folder: folder, what: key, saved: state.settings[key] ?? "unset", asked: asked)
        }
        guard state.dataChecksum == data.checksum else {
            throw DataError.changed(path: recipe.data.path, expected: state.dataChecksum, found: data.checksum)
        }
        let changes = try checkpoints.load(step: step, into: model, optimizer, backend: backend)
        for change in changes { progress.note("continuing with \(change.key) \(change.now), was \(change.was)") }
        passedOver = checkpoints.steps().filter { $0 > step }
        taken = step
        savedStep = step
    }
}

extension Duration {
    /// The duration in seconds.
    var seconds: Double { Double(components.seconds) + Double(components.attoseconds) * 1e-18 }
}
