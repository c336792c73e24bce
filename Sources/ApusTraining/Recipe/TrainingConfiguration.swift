public import ApusNN
public import ApusOptim

/// How a run trains.
public struct TrainingConfiguration: Sendable, Equatable {
    /// AdamW's constants.
    public struct Optimizer: Sendable, Equatable {
        /// Rate at the end of warm-up.
        public var learningRate: Double
        /// Decay of the first moment.
        public var beta1: Float
        /// Decay of the second moment.
        public var beta2: Float
        /// Added to the root of the second moment.
        public var epsilon: Float
        /// Decoupled decay of weights that are neither norms nor biases.
        public var weightDecay: Float

        /// Common values.
        public init(
            learningRate: Double = 1e-3, beta1: Float = 0.9, beta2: Float = 0.95, epsilon: Float = 1e-8,
            weightDecay: Float = 0.1
        ) {
            self.learningRate = learningRate
            self.beta1 = beta1
            self.beta2 = beta2
            self.epsilon = epsilon
            self.weightDecay = weightDecay
        }
    }

    /// The shape of the learning rate over the run.
    public struct Schedule: Sendable, Equatable {
        /// Shape after warm-up.
        public var kind: LearningRateSchedule.Kind
        /// Steps of linear warm-up.
        public var warmupSteps: Int
        /// The last step's rate as a fraction of the base rate; 1 when the rate is constant.
        public var finalFraction: Double
        /// Steps of the decay at the end of `constant-then-decay`; 0 for the other kinds.
        public var decaySteps: Int

        /// A constant rate unless told otherwise.
        public init(
            kind: LearningRateSchedule.Kind = .constant, warmupSteps: Int = 0, finalFraction: Double = 1,
            decaySteps: Int = 0
        ) {
            self.kind = kind
            self.warmupSteps = warmupSteps
            self.finalFraction = finalFraction
            self.decaySteps = decaySteps
        }
    }

    /// The folder whose weights the run begins with: of a model like the recipe's, or of a run; `nil` for draws. Key
    /// `training.start`.
    public var start: String?
    /// Optimizer steps.
    public var steps: Int
    /// Sequences of one step.
    public var batch: Int
    /// Sequences of one forward and backward; a divisor of ``batch``.
    public var microBatch: Int
    /// Types of weights, gradients and optimizer state.
    public var precision: Precision
    /// AdamW's constants.
    public var optimizer: Optimizer
    /// The shape of the learning rate.
    public var schedule: Schedule
    /// Largest norm of the whole gradient; 0 for no limit.
    public var clipNorm: Float
    /// Whether a block's inner values are computed again in backward instead of kept.
    public var checkpointing: Bool
    /// Consecutive sequences over which capacity, drop order and the balance loss are computed.
    public var routingGroup: Int
    /// Consecutive sequences over which the balance loss alone is computed; a multiple of ``routingGroup``.
    public var balanceGroup: Int
    /// Steps between evaluations on held-out text; 0 for none.
    public var evaluateEvery: Int
    /// Batches of one evaluation.
    public var evaluateBatches: Int
    /// Whether a device that has a faster attention backward with other bits each time may not use it.
    ///
    /// On the CPU the same recipe gives the same bits on the same machine either way: the key changes nothing there.
    public var deterministic: Bool
    /// Threads; `nil` for one for each core.
    public var threads: Int?
    /// Bytes that tensors may take in all; `nil` for what the machine has.
    public var memoryLimit: Int?

    /// `steps` steps of `batch` sequences; everything else has the value a recipe's reader would fill in.
    public init(
        steps: Int, batch: Int, microBatch: Int? = nil, precision: Precision = .bf16,
        optimizer: Optimizer = Optimizer(), schedule: Schedule = Schedule(), clipNorm: Float = 1,
        checkpointing: Bool = false, routingGroup: Int = 1, balanceGroup: Int? = nil, evaluateEvery: Int = 100,
        evaluateBatches: Int = 8, deterministic: Bool = true, threads: Int? = nil, memoryLimit: Int? = nil,
        start: String? = nil
    ) {
        self.start = start
        self.steps = steps
        self.batch = batch
        self.microBatch = microBatch ?? batch
        self.precision = precision
        self.optimizer = optimizer
        self.schedule = schedule
        self.clipNorm = clipNorm
        self.checkpointing = checkpointing
        self.routingGroup = routingGroup
        self.balanceGroup = balanceGroup ?? routingGroup
        self.evaluateEvery = evaluateEvery
        self.evaluateBatches = evaluateBatches
        self.deterministic = deterministic
        self.threads = threads
        self.memoryLimit = memoryLimit
    }

    /// The rate of every step.
    public var learningRate: LearningRateSchedule {
        LearningRateSchedule(
            base: optimizer.learningRate, kind: schedule.kind, warmupSteps: schedule.warmupSteps, steps: steps,
            finalFraction: schedule.finalFraction, decaySteps: schedule.decaySteps)
    }
}
