public import ApusTensor
import CApusKernels

// Shape letters: E experts, G routing groups.

/// The constants of one AdamW step (Loshchilov and Hutter 2019, algorithm 2).
public struct AdamWStep: Sendable {
    /// Learning rate of this step.
    public var learningRate: Float
    /// Decay of the first moment.
    public var beta1: Float
    /// Decay of the second moment.
    public var beta2: Float
    /// Added to the root of the second moment.
    public var epsilon: Float
    /// Decoupled decay.
    public var weightDecay: Float
    /// Steps taken, this one included: at least 1.
    public var step: Int

    /// The constants of a step.
    public init(learningRate: Float, beta1: Float, beta2: Float, epsilon: Float, weightDecay: Float, step: Int) {
        precondition(step >= 1)
        self.learningRate = learningRate
        self.beta1 = beta1
        self.beta2 = beta2
        self.epsilon = epsilon
        self.weightDecay = weightDecay
        self.step = step
    }

    /// `1 - beta^step`, by which a moment that started at 0 is divided. By squaring: the same bits everywhere.
    public func correction(_ beta: Float) -> Float {
        var (result, square, rest) = (1.0, Double(beta), step)
        while rest > 0 {
            if rest & 1 == 1 { result *= square }
            square *= square
            rest >>= 1
        }
        return Float(1 - result)
    }
}

/// The state of a dense run of parameters, and where the step writes.
public struct AdamWBuffers: Sendable {
    /// Weights that the model reads: `f32` or `bf16`.
    public var weights: Tensor
    /// `f32` weights that the step updates when the model's are `bf16`; `nil` when the model's own are updated.
    public var master: Tensor?
    /// First moment.
    public var first: Tensor
    /// Second moment.
    public var second: Tensor
    /// Accumulated gradient.
    public var gradient: Tensor

    /// The buffers of a step.
    public init(weights: Tensor, master: Tensor?, first: Tensor, second: Tensor, gradient: Tensor) {
        self.weights = weights
        self.master = master
        self.first = first
        self.second = second
        self.gradient = gradient
    }
}

/// What one step does to a dense run of parameters.
public struct AdamWRun: Sendable {
    /// Weights, gradient and state.
    public var buffers: AdamWBuffers
    /// The constants of the step.
    public var step: AdamWStep
    /// What the stochastic rounding of `bf16` weights without a master is keyed by, with `firstElement + i`.
    public var rounding: RandomStream
    /// See ``rounding``.
    public var firstElement: UInt64

    /// A step of these buffers.
    public init(_ buffers: AdamWBuffers, _ step: AdamWStep, rounding: RandomStream, firstElement: UInt64 = 0) {
        self.buffers = buffers
        self.step = step
        self.rounding = rounding
        self.firstElement = firstElement
    }
}

/// The end of a training step: the norm, the optimizer, and what is not trained by gradients.
///
/// A device may be given the next step before the host has seen how this one went. So the device itself holds back what
/// must not happen: ``clipFactor(sumOfSquares:loss:previous:limit:into:)`` yields NaN where a number of the step is not
/// finite, or where the step before was held back, and ops that take that `gradientScale` then change nothing.
public protocol OptimizerOp {
    /// One AdamW step of all `runs`, in one pass over memory; `gradientScale` (1) `f32` multiplies the gradients in the
    /// pass. Where it is not finite, nothing changes: no weight, no moment.
    ///
    /// With `bf16` weights and no master, weights and moments are rounded stochastically.
    func adamW(_ runs: [AdamWRun], gradientScale: Tensor) throws
    /// `sum[0] = ` the sum of squares of all gradients, each dense, in a fixed order. `sum` is `f32`.
    func gradientSquares(_ gradients: [Tensor], into sum: Tensor) throws
    /// `scale[0] = ` the factor that brings a gradient with this sum of squares to a norm of at most `limit`, 1 where that
    /// is 0 or less; NaN where the sum, `loss` or `previous`, the factor of the step before, is not finite.
    func clipFactor(sumOfSquares: Tensor, loss: Tensor?, previous: Tensor?, limit: Float, into scale: Tensor) throws
    /// Adds `rate` to the `bias` (E) `f32` of each expert whose load lies below the mean, and takes it from those above.
    ///
    /// An expert's load is the sum of its `choices`, (G, E) `f32` each. Nothing changes where `gradientScale` is not
    /// finite.
    func moveSelectionBias(_ bias: Tensor, choices: [Tensor], rate: Float, gradientScale: Tensor) throws
}

extension OptimizerOp {
    /// One AdamW step of one run.
    public func adamW(
        _ buffers: AdamWBuffers, _ step: AdamWStep, gradientScale: Tensor, rounding: RandomStream, firstElement: UInt64
    ) throws {
        try adamW(
            [AdamWRun(buffers, step, rounding: rounding, firstElement: firstElement)], gradientScale: gradientScale)
    }
}

extension CPUBackend: OptimizerOp {
    public func adamW(_ runs: [AdamWRun], gradientScale: Tensor) throws {
        try gradientScale.waitUntilReady()
        let scale = gradientScale.pointer(to: Float.self)[0]
        guard scale.isFinite else { return }
        for run in runs { try adamW(run, scale: scale) }
    }

    private func adamW(_ run: AdamWRun, scale: Float) throws {
        let (buffers, step) = (run.buffers, run.step)
        try buffers.gradient.waitUntilReady()
        try buffers.weights.waitUntilReady()
        try buffers.master?.waitUntilReady()
        try buffers.first.waitUntilReady()
        try buffers.second.waitUntilReady()
        var constants = apus_adamw_step()
        constants.learning_rate = step.learningRate
        constants.beta1 = step.beta1
        constants.beta2 = step.beta2
        constants.epsilon = step.epsilon
        constants.weight_decay = step.weightDecay
        constants.bias_correction1 = step.correction(step.beta1)
        constants.bias_correction2 = step.correction(step.beta2)
        constants.gradient_scale = scale
        let fixed = constants
        let stream = run.rounding.kernelStream
        overElements(buffers.weights.count) { begin, count in
            var constants = fixed
            switch (buffers.weights.dtype, buffers.master) {
            case (.f32, _):
                apus_adamw_f32(
                    buffers.weights.pointer(to: Float.self) + begin, buffers.first.pointer(to: Float.self) + begin,
                    buffers.second.pointer(to: Float.self) + begin, buffers.gradient.pointer(to: Float.self) + begin,
                    count, &constants)
            case (_, let master?):
                apus_adamw_bf16(
                    buffers.weights.pointer(to: UInt16.self) + begin, master.pointer(to: Float.self) + begin,
                    buffers.first.pointer(to: Float.self) + begin, buffers.second.pointer(to: Float.self) + begin,
                    buffers.gradient.pointer(to: Float.self) + begin, count, &constants)
            case (_, nil):
                apus_adamw_bf16_pure(
                    buffers.weights.pointer(to: UInt16.self) + begin, buffers.first.pointer(to: UInt16.self) + begin,
                    buffers.second.pointer(to: UInt16.self) + begin, buffers.gradient.pointer(to: UInt16.self) + begin,
                    count, &constants, stream, run.firstElement + UInt64(begin))
            }
        }
    }

    public func gradientSquares(_ gradients: [Tensor], into sum: Tensor) throws {
        var total: Float = 0
        for gradient in gradients { total = Float(Double(total) + (try squares(of: gradient))) }
        fill(sum, with: total)
    }

    private func squares(of gradient: Tensor) throws -> Double {
        precondition(gradient.isContiguous)
        try gradient.waitUntilReady()
        return try sumOverBlocks(gradient) { begin, count in
            gradient.dtype == .f32
                ? apus_sum_squares_f32(gradient.pointer(to: Float.self) + begin, count)
                : apus_sum_squares_bf16(gradient.pointer(to: UInt16.self) + begin, count)
        }
    }

    public func clipFactor(
        sumOfSquares: Tensor, loss: Tensor?, previous: Tensor?, limit: Float, into scale: Tensor
    ) throws {
        let isSound = try [sumOfSquares, loss, previous].compactMap(\.self).allSatisfy { tensor in
            try tensor.waitUntilReady()
            return tensor.pointer(to: Float.self)[0].isFinite
        }
        let norm = sumOfSquares.pointer(to: Float.self)[0].squareRoot()
        // The small constant is PyTorch's, so that a clipped run follows its loss curve.
        scale.pointer(to: Float.self)[0] = !isSound ? .nan : limit > 0 ? min(1, limit / (norm + 1e-6)) : 1
    }

    public func moveSelectionBias(_ bias: Tensor, choices: [Tensor], rate: Float, gradientScale: Tensor) throws {
        try gradientScale.waitUntilReady()
        guard gradientScale.pointer(to: Float.self)[0].isFinite else { return }
        var loads = Array(repeating: 0, count: bias.count)
        for part in choices {
            try part.waitUntilReady()
            for (index, count) in part.floats().enumerated() { loads[index % bias.count] += Int(count) }
        }
        let mean = Float(loads.reduce(0, +)) / Float(loads.count)
        let values = bias.pointer(to: Float.self)
        for (expert, load) in loads.enumerated() {
            values[expert] += rate * (Float(load) < mean ? 1 : Float(load) > mean ? -1 : 0)
        }
    }
}
