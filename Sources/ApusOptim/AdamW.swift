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

    /// The state of one group: flat like its weights, or this rank's share of each of its parts, one after the other.
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
    /// Whether ranks with the same parameters divide the state among them (ZeRO-1, Rajbhandari et al. 2020, section 5.1):
    /// each then steps its share of every part, and the ranks collect the weights from each other.
    public let dividesState: Bool
    private let seed: UInt64

    /// State for a store whose weights have their values: masters are copied from them.
    ///
    /// - Throws: ``TensorError/outOfMemory(requested:purpose:statistics:limit:)``
    public init(
        _ store: ParameterStore, configuration: Configuration, seed: UInt64, dividesState: Bool = false,
        backend: any Backend
    ) throws {
        self.store = store
        self.configuration = configuration
        self.seed = seed
        self.dividesState = dividesState
        lastScale = try AdamW.one(backend)
        states = try store.groups.map { group in
            let type = group.precision.momentType
            let stretches = AdamW.stretches(of: group, dividesState: dividesState)
            let shape = Shape(stretches.last?.state.upperBound ?? 0)
            let state = GroupState(
                first: try backend.zeros(shape, type, .optimizerState),
                second: try backend.zeros(shape, type, .optimizerState),
                master: group.precision.hasMaster ? try backend.empty(shape, .f32, .optimizerState) : nil)
            if let master = state.master {
                for stretch in stretches {
                    try backend.convert(group.weights[stretch.weights], into: master[stretch.state])
                }
            }
            return state
        }
    }

    /// What this rank steps of a part of the gradients.
    private struct Stretch {
        let part: GradientPart
        /// Elements of the group's weights.
        let weights: Range<Int>
        /// Elements of the group's state.
        let state: Range<Int>
    }

    private static func stretches(of group: ParameterGroup, dividesState: Bool) -> [Stretch] {
        precondition(!group.gradientParts.isEmpty, "the store is not trained")
        var end = 0
        return group.gradientParts.map { part in
            let range = dividesState ? part.ownRange : part.range
            defer { end += range.count }
            return Stretch(part: part, weights: range, state: end..<end + range.count)
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
            let constants = AdamWStep(
                learningRate: Float(learningRate), beta1: configuration.beta1, beta2: configuration.beta2,
                epsilon: configuration.epsilon, weightDecay: group.decays ? configuration.weightDecay : 0,
                step: stepCount)
            let rounding = RandomStream(seed: seed, purpose: .stochasticRounding, layer: index, step: stepCount)
            return try AdamW.stretches(of: group, dividesState: dividesState).map { stretch in
                AdamWRun(
                    AdamWBuffers(
                        weights: group.weights[stretch.weights], master: state.master?[stretch.state],
                        first: state.first[stretch.state], second: state.second[stretch.state],
                        gradient: try dividesState ? stretch.part.ownGradients() : stretch.part.gradients()),
                    constants, rounding: rounding, firstElement: UInt64(stretch.weights.lowerBound))
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

    /// A part of one kind of state of one parameter, as checkpoints store it.
    public struct StatePiece {
        /// `first`, `second`, or `master` where there is one.
        public let kind: String
        /// The parameter.
        public let parameter: Parameter
        /// The elements of what this rank holds of the parameter that the piece is of; all, unless state is divided.
        public let elements: Range<Int>
        /// The piece, a view of the flat buffers.
        public let tensor: Tensor

        /// `<kind>.<parameter>`.
        public var name: String { "\(kind).\(parameter.name)" }
    }

    /// What this rank has of the state, parameter by parameter.
    public func statePieces() -> [StatePiece] {
        zip(store.groups, states).flatMap { group, state in
            let kinds =
                [("first", state.first), ("second", state.second)] + (state.master.map { [("master", $0)] } ?? [])
            let stretches = AdamW.stretches(of: group, dividesState: dividesState)
            return group.parameters.flatMap { parameter in
                let range = group.range(of: parameter)
                return stretches.flatMap { stretch -> [StatePiece] in
                    let common = range.clamped(to: stretch.weights)
                    guard !common.isEmpty else { return [] }
                    let first = common.lowerBound - stretch.weights.lowerBound + stretch.state.lowerBound
                    let elements = common.lowerBound - range.lowerBound..<common.upperBound - range.lowerBound
                    return kinds.map { kind, state in
                        StatePiece(
                            kind: kind, parameter: parameter, elements: elements,
                            tensor: state[first..<first + common.count])
                    }
                }
            }
        }
    }

    /// The state of each parameter by its piece's name: ``statePieces()`` where none is divided.
    public func namedStates() -> [(name: String, tensor: Tensor)] { statePieces().map { ($0.name, $0.tensor) } }
}
