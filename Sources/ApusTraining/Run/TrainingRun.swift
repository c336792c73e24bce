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
    private let backend: any Backend
    private let optimizer: AdamW
    private let trainStep: TrainStep
    private let corpus: TextCorpus
    private let stream: SequenceStream
    private let heldOut: SequenceStream?
    private let checkpoints: CheckpointFolder
    private let progress: ProgressLine
    private var taken = 0
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
    /// - Throws: ``DataError``, ``TensorError``, ``TrainingCheckpointError``, ``CheckpointFileError``.
    public init(_ recipe: Recipe, folder: String, resumes: Bool, backend: any Backend) throws {
        self.recipe = recipe
        self.folder = folder
        self.backend = backend
        progress = ProgressLine(steps: recipe.training.steps, every: recipe.output.logEvery)
        checkpoints = CheckpointFolder(run: folder, keep: recipe.output.keep)
        if !resumes, !checkpoints.steps().isEmpty { throw TrainingCheckpointError.runExists(folder: folder) }
        corpus = try TextCorpus(path: recipe.data.path, vocabulary: ByteVocabulary())
        let (training, rest) = corpus.split(heldOut: recipe.data.heldOut)
        stream = try SequenceStream(
            training, sequenceLength: recipe.data.sequenceLength, shuffleSeed: recipe.data.shuffle ? recipe.seed : nil,
            path: recipe.data.path, part: "training")
        heldOut =
            recipe.training.evaluateEvery == 0
            ? nil
            : try SequenceStream(
                rest, sequenceLength: recipe.data.sequenceLength, shuffleSeed: nil, path: recipe.data.path,
                part: "held-out")
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
        do {
            return try takeSteps()
        } catch {
            rescue()
            throw error
        }
    }

    private func takeSteps() throws -> Outcome {
        try RunFolder.create(folder)
        _ = try AtomicFile.write(recipe.resolvedYAML(), to: "\(folder)/recipe.yaml")
        let metricsFile = try MetricsFile(path: "\(folder)/metrics.jsonl", afterStep: taken)
        let peak = try MachineSpeed.product(.f32, backend: backend)
        let flops = recipe.model.flopsPerToken(
            meanContext: recipe.model.meanContext(sequence: recipe.data.sequenceLength)
        ).training
        let clock = ContinuousClock()
        var secondsPerStep: Double?
        while taken < recipe.training.steps {
            let begin = clock.now
            let step = taken + 1
            let learningRate = recipe.training.learningRate.rate(step: step)
            let first = taken * recipe.training.batch
            let result = try trainStep(
                step: step, sequenceLength: recipe.data.sequenceLength, learningRate: learningRate
            ) { [stream] in stream.sequences(first + $0.lowerBound..<first + $0.upperBound) }
            taken = step
            let seconds = (clock.now - begin).seconds
            var metrics = metrics(result, step, learningRate, seconds, flops: flops, peak: peak)
            metrics.heldOutLoss = try evaluateIfDue(step)
            try metricsFile.append(metrics)
            secondsPerStep = secondsPerStep.map { 0.9 * $0 + 0.1 * seconds } ?? seconds
            report(result.routing, metrics, secondsPerStep: secondsPerStep ?? seconds)
            if Interruption.isRequested, step < recipe.training.steps {
                try save()
                return .interrupted(step: step)
            }
            if recipe.output.saveEvery > 0, step % recipe.output.saveEvery == 0 { try save() }
        }
        if savedStep != taken { try save() }
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
    /// Tokens that the text has.
    public var corpusTokens: Int { corpus.tokens.count }
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

    private func evaluateIfDue(_ step: Int) throws -> Double? {
        guard let heldOut, step % recipe.training.evaluateEvery == 0 || step == recipe.training.steps else {
            return nil
        }
        return try trainStep.evaluate(heldOut, batches: recipe.training.evaluateBatches)
    }

    private func save(prunes: Bool = true) throws {
        let state = TrainingState(step: taken, dataChecksum: corpus.checksum, settings: recipe.resumeSettings)
        do {
            try checkpoints.save(model, optimizer, state, removing: passedOver, prunes: prunes, backend: backend)
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
        guard state.dataChecksum == corpus.checksum else {
            throw DataError.changed(path: recipe.data.path, expected: state.dataChecksum, found: corpus.checksum)
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
