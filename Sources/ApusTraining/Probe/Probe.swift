import ApusData
public import ApusKernels
public import ApusModels
import ApusNN
import ApusOptim
import ApusTensor

// Shape letters: N tokens with an answer, V entries of the vocabulary.

/// Trains a model on one small task after another, each from new weights, and measures what it has learned: a comparison
/// of routers and blocks in minutes (MAD, Poli et al. 2024, section 3).
///
/// Layers, experts, routers and blocks are those of the configuration; its vocabulary is the tasks'. The same settings
/// give every model the same sequences, and one model the same figures each time.
public struct Probe {
    /// Sizes, steps and seed.
    public let settings: ProbeSettings
    /// Where models are trained.
    public let backend: any Backend

    /// A probe.
    ///
    /// - Throws: ``ProbeError/invalid(name:value:expected:)``
    public init(_ settings: ProbeSettings, backend: any Backend) throws(ProbeError) {
        try settings.validate()
        self.settings = settings
        self.backend = backend
    }

    /// What a model has made of a task.
    public struct Outcome: Sendable, Equatable {
        /// The task.
        public let task: ProbeTask
        /// The share of answers that were right, over sequences that were not trained on.
        public let accuracy: Double
        /// The share that guessing gets right.
        public let chance: Double
        /// The last step's loss, in nats.
        public let loss: Double
    }

    /// The model that is trained in place of `configuration`: the same with the tasks' vocabulary, and positions for
    /// their sequences.
    public func model(of configuration: ModelConfiguration) -> ModelConfiguration {
        var result = configuration
        result.vocabulary = ProbeTask.vocabulary(settings)
        result.maximumPositions = max(configuration.maximumPositions, settings.length)
        return result
    }

    /// Trains `configuration` on `task`.
    ///
    /// - Throws: ``ProbeError/notFinite(task:step:place:)``; ``ModelConfigurationError`` for a model that cannot be;
    ///   ``TensorError`` when memory runs out.
    public func run(_ task: ProbeTask, _ configuration: ModelConfiguration) throws -> Outcome {
        let configuration = model(of: configuration)
        try configuration.checkSizes()
        let length = task.sequenceLength(settings)
        let training = TrainingConfiguration(
            steps: settings.steps, batch: settings.batch, precision: .f32,
            optimizer: TrainingConfiguration.Optimizer(learningRate: settings.learningRate, weightDecay: 0),
            schedule: TrainingConfiguration.Schedule(
                kind: .cosine, warmupSteps: settings.steps / 10, finalFraction: 0))
        let model = try Transformer(
            configuration, backend: backend, precision: .f32, isTrained: true, positions: length)
        try model.store.initialize(seed: settings.seed, backend: backend)
        let optimizer = try AdamW(
            model.store, configuration: AdamW.Configuration(weightDecay: 0), seed: settings.seed, backend: backend)
        let step = TrainStep(
            model: model, optimizer: optimizer, backend: backend, configuration: training, seed: settings.seed)
        var loss = Float.nan
        for number in 1...settings.steps {
            do {
                loss = try step(
                    step: number, batch: task.batch(settings, draw: number),
                    learningRate: training.learningRate.rate(step: number)
                ).loss
            } catch let failure as NonFiniteError {
                throw ProbeError.notFinite(task: task, step: number, place: failure.place)
            }
        }
        return Outcome(
            task: task, accuracy: try accuracy(of: step, task, length), chance: task.chance(settings),
            loss: Double(loss))
    }

    /// The share of answers that the highest logit gets right.
    private func accuracy(of step: TrainStep, _ task: ProbeTask, _ length: Int) throws -> Double {
        var (right, all) = (0, 0)
        for number in 0..<settings.measuredBatches {
            let batch = task.batch(settings, draw: Probe.firstMeasured + number)
            let rows = batch.targets.indices.filter { batch.targets[$0] >= 0 }
            guard !rows.isEmpty else { continue }
            let context = try step.context(
                Tape(backend: backend, isRecording: false), sequences: settings.batch, length, firstToken: 0, step: nil,
                globalTokens: settings.batch * length, documents: batch.documents, nil, isEvaluation: true)
            let logits = try step.model.logits(
                tokens: backend.tensor(batch.inputs, Shape(batch.inputs.count)),
                rows: backend.tensor(rows.map { Int32($0) }, Shape(rows.count)), context)
            let values = try backend.floats(logits)
            let width = logits.shape[1]
            for (place, row) in rows.enumerated() {
                let own = values[place * width..<(place + 1) * width]
                guard let best = own.indices.max(by: { own[$0] < own[$1] }) else { continue }
                if best - own.startIndex == Int(batch.targets[row]) { right += 1 }
            }
            all += rows.count
        }
        return Double(right) / Double(max(all, 1))
    }

    /// Beyond every step that a probe may take.
    private static let firstMeasured = 1 << 24
}
