public import ApusKernels
public import ApusNN
public import ApusTensor

/// AdamW over a parameter store's flat buffers (Loshchilov and Hutter 2019): one pass over memory a step, after which
/// the gradients' memory is free.
///
/// Weight decay is decoupled and applies to the groups that decay: not to norms and biases. The state is kept in the
/// types of each group's precision mode; with `bf16` weights an `f32` master is updated and rounded into them, and
/// `bf16-pure` rounds stochastically, keyed by step and element.
public final class AdamW {
    /// The constants that do not change from step to step.
    public struct Configuration: Sendable, Equatable {
        /// Decay of the first moment.
        public var beta1: Float
        /// Decay of the second moment.
        public var beta2: Float
        /// Added to the root of the second moment.
        public var epsilon: Float
        /// Decoupled decay of groups that decay.
        public var weightDecay: Float

        /// Constants; the defaults are those of current language models.
        public init(beta1: Float = 0.9, beta2: Float = 0.95, epsilon: Float = 1e-8, weightDecay: Float = 0.1) {
            self.beta1 = beta1
            self.beta2 = beta2
            self.epsilon = epsilon
            self.weightDecay = weightDecay
        }
    }

    /// The state of one group, flat like its weights.
    public struct GroupState {
        /// First moment.
        public let first: Tensor
        /// Second moment.
        public let second: Tensor
        /// `f32` weights; `nil` when the model's own are updated.
        public let master: Tensor?
    }

    /// The parameters.
    public let store: ParameterStore
    /// The constants.
    public let configuration: Configuration
    /// The state of each of the store's groups, in their order.
    public let states: [GroupState]
    /// Steps taken.
    public private(set) var stepCount = 0
    /// (1) `f32`: what the last step multiplied gradients by, not finite if it was held back; 1 before the first.
    public private(set) var lastScale: Tensor
    private let seed: UInt64

    /// State for a store whose weights have their values: masters are copied from them.
    ///
    /// - Throws: ``TensorError/outOfMemory(requested:purpose:statistics:limit:)``
    public init(_ store: ParameterStore, configuration: Configuration, seed: UInt64, backend: any Backend) throws {
        self.store = store
        self.configuration = configuration
        self.seed = seed
        lastScale = try AdamW.one(backend)
        states = try store.groups.map { group in
            let type = group.precision.momentType
            let state = GroupState(
                first: try backend.zeros(group.weights.shape, type, .optimizerState),
                second: try backend.zeros(group.weights.shape, type, .optimizerState),
                master: group.precision.hasMaster ? try backend.empty(group.weights.shape, .f32, .optimizerState) : nil)
            if let master = state.master { try backend.convert(group.weights, into: master) }
            return state
        }
    }

    /// One step with the accumulated gradients, which it multiplies by `gradientScale` (1) `f32` and releases.
    ///
    /// Where the scale is not finite the device changes nothing, but ``stepCount`` counts the step: whoever learns of it
    /// takes it back with ``resume(atStep:backend:)``.
    ///
    /// - Throws: ``TensorError/outOfMemory(requested:purpose:statistics:limit:)``
    public func step(learningRate: Double, gradientScale: Tensor, backend: any Backend) throws {
        stepCount += 1
        lastScale = gradientScale
        let runs = try zip(store.groups, states).enumerated().flatMap { index, part in
            let (group, state) = part
            precondition(!group.gradientParts.isEmpty, "the store is not trained")
            let constants = AdamWStep(
                learningRate: Float(learningRate), beta1: configuration.beta1, beta2: configuration.beta2,
                epsilon: configuration.epsilon, weightDecay: group.decays ? configuration.weightDecay : 0,
                step: stepCount)
            let rounding = RandomStream(seed: seed, purpose: .stochasticRounding, layer: index, step: stepCount)
            return try group.gradientParts.map { part in
                AdamWRun(
                    AdamWBuffers(
                        weights: group.weights[part.range], master: state.master?[part.range],
                        first: state.first[part.range], second: state.second[part.range],
                        gradient: try part.gradients()),
                    constants, rounding: rounding, firstElement: UInt64(part.range.lowerBound))
            }
        }
        try backend.adamW(runs, gradientScale: gradientScale)
        store.releaseGradients()
    }

    /// Continues from `count` steps, whose state is in ``states``: loaded there, or left there by steps that changed
    /// nothing.
    ///
    /// - Throws: ``TensorError/outOfMemory(requested:purpose:statistics:limit:)``
    public func resume(atStep count: Int, backend: any Backend) throws {
        lastScale = try AdamW.one(backend)
        stepCount = count
    }

    private static func one(_ backend: any Backend) throws -> Tensor {
        let result = try backend.empty(Shape(1), .f32)
        try backend.fill(result, with: 1)
        return result
    }

    /// The state of each parameter by name: `<kind>.<parameter>`, kinds `first`, `second` and, where there is one,
    /// `master`. Views of the flat buffers, as checkpoints store them.
    public func namedStates() -> [(name: String, tensor: Tensor)] {
        zip(store.groups, states).flatMap { group, state in
            group.parameters.flatMap { parameter in
                let range = group.range(of: parameter)
                let kinds =
                    [("first", state.first), ("second", state.second)] + (state.master.map { [("master", $0)] } ?? [])
                return kinds.map { ("\($0.0).\(parameter.name)", $0.1[range]) }
            }
        }
    }
}
