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
    private var taken = 0
    /// Tokens of the largest batch that is prepared ahead, some 100 MB.
    private static let mostTokensAhead = 1 << 23
    /// Damaged checkpoints that resuming passed over; the next save removes them.
    private var passedOver: [Int] = []
    /// The step of the newest checkpoint that is whole; `nil` while nothing was saved.
    public private(set) var savedStep: Int?
    /// Why the last attempt to save failed; `nil` when it did not.
    public private(set) var savingError: (any Error)?
    private var table = LoadTable()
    private var monitor = LoadMonitor()

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
        model = try Transformer(
            recipe.model, backend: backend, precision: recipe.training.precision, isTrained: true,
            positions: recipe.data.sequenceLength)
        try model.store.initialize(seed: recipe.seed, backend: backend)
        let constants = recipe.training.optimizer
        optimizer = try AdamW(
            model.store,
            configuration: AdamW.Configuration(
                beta1: constants.beta1, beta2: constants.beta2, epsilon: constants.epsilon,
                weightDecay: constants.weightDecay), seed: recipe.seed, backend: backend)
        trainStep = TrainStep(
            model: model, optimizer: optimizer, backend: backend, configuration: recipe.training, seed: recipe.seed)
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
        let metricsFile = try MetricsFile(path: "\(folder)/metrics.jsonl", afterStep: taken)
        let eventFile = try EventFile(folder: "\(folder)/tensorboard", afterStep: taken, of: recipe.training.steps)
        let peak = try MachineSpeed.peak(recipe.training.precision.modelType, backend: backend)
        let flops = recipe.model.flopsPerToken(
            meanContext: recipe.model.meanContext(sequence: recipe.data.sequenceLength)
        ).training
        let batchTokens = recipe.training.batch * recipe.data.sequenceLength
        let loader =
            batchTokens <= Self.mostTokensAhead
            ? BatchLoader(data.stream, batch: recipe.training.batch, firstStep: taken) : nil
        let clock = ContinuousClock()
        var secondsPerStep: Double?
        while taken < recipe.training.steps {
            let begin = clock.now
            let step = taken + 1
            let trace = traceFile?.trace(step: step, last: recipe.training.steps)
            trace?.begin("step \(step)", .step)
            let learningRate = recipe.training.learningRate.rate(step: step)
            let read = try trace.span("data", .phase) { try reader(step: step, loader) }
            let result = try trainStep(
                step: step, sequenceLength: recipe.data.sequenceLength, learningRate: learningRate, trace: trace,
                read: read)
            taken = step
            let seconds = (clock.now - begin).seconds
            var metrics = metrics(result, step, learningRate, seconds, flops: flops, peak: peak)
            metrics.heldOutLoss = try evaluateIfDue(step, trace)
            secondsPerStep = secondsPerStep.map { 0.9 * $0 + 0.1 * seconds } ?? seconds
            try trace.span("metrics", .phase) {
                try metricsFile.append(metrics)
                try eventFile.append(metrics)
                report(result.routing, metrics, secondsPerStep: secondsPerStep ?? seconds)
            }
            let isLast = step == recipe.training.steps
            let isStopped = Interruption.isRequested && !isLast
            let isDue = recipe.output.saveEvery > 0 && step % recipe.output.saveEvery == 0
            if isDue || isStopped || isLast { try trace.span("checkpoint", .phase) { try save() } }
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

    /// The loads of all experts over this run, as a table; empty for a dense model.
    public var loadTable: String { table.text }
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

    private func metrics(
        _ result: TrainStep.Result, _ step: Int, _ learningRate: Double, _ seconds: Double, flops: Double, peak: Double
    ) -> StepMetrics {
        let tokens = Double(recipe.training.batch * recipe.data.sequenceLength)
        return StepMetrics(
            step: step, loss: Double(result.loss), balanceLoss: result.routing.balance, zLoss: result.routing.z,
            droppedFraction: result.routing.droppedFraction, gradientNorm: Double(result.gradientNorm),
            learningRate: learningRate, tokensPerSecond: tokens / seconds, mfu: flops * tokens / seconds / peak,
            peakBytes: backend.allocator.statistics.totalPeak, stepSeconds: seconds,
            expertShares: result.routing.layers.map { ($0.layer, $0.shares) })
    }

    private func report(_ routing: RoutingSummary, _ metrics: StepMetrics, secondsPerStep: Double) {
        table.add(routing)
        let warnings = monitor.observe(routing) { recipe.model.moe(layer: $0)?.choices ?? 1 }
        for warning in warnings { progress.note("warning: \(warning)") }
        let worst = routing.layers.max { $0.peakToMean < $1.peakToMean }
        progress.show(
            metrics, remaining: secondsPerStep * Double(recipe.training.steps - metrics.step), worst: worst)
    }

    private func evaluateIfDue(_ step: Int, _ trace: Trace?) throws -> Double? {
        guard let heldOut = data.heldOut, step % recipe.training.evaluateEvery == 0 || step == recipe.training.steps
        else { return nil }
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
        guard savingError == nil, taken > 0, savedStep != taken, optimizer.stepCount == taken else { return }
        try? save(prunes: false)
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
