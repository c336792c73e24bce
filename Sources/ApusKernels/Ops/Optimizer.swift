public import ApusTensor
import CApusKernels

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
    /// Accumulated gradient; zeroed by the step.
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

/// Optimizer steps, one pass over memory each.
public protocol OptimizerOp {
    /// One AdamW step; `gradientScale` (1) `f32` multiplies the gradient in the pass, which also zeroes it.
    ///
    /// With `bf16` weights and no master, weights and moments are rounded stochastically, keyed by `rounding` and
    /// `firstElement + i`.
    func adamW(
        _ buffers: AdamWBuffers, _ step: AdamWStep, gradientScale: Tensor, rounding: RandomStream, firstElement: UInt64)
        throws
    /// `scale[0] = ` the factor that brings a gradient with this sum of squares to a norm of at most `limit`.
    func clipFactor(sumOfSquares: Tensor, limit: Float, into scale: Tensor) throws
}

extension CPUBackend: OptimizerOp {
    public func adamW(
        _ buffers: AdamWBuffers, _ step: AdamWStep, gradientScale: Tensor, rounding: RandomStream, firstElement: UInt64
    ) throws {
        try gradientScale.waitUntilReady()
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
        constants.gradient_scale = gradientScale.pointer(to: Float.self)[0]
        constants.zero_gradient = true
        let fixed = constants
        let stream = rounding.kernelStream
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
                    count, &constants, stream, firstElement + UInt64(begin))
            }
        }
    }

    public func clipFactor(sumOfSquares: Tensor, limit: Float, into scale: Tensor) throws {
        try sumOfSquares.waitUntilReady()
        let norm = sumOfSquares.pointer(to: Float.self)[0].squareRoot()
        // The small constant is PyTorch's, so that a clipped run follows its loss curve.
        scale.pointer(to: Float.self)[0] = limit > 0 ? min(1, limit / (norm + 1e-6)) : 1
    }
}
