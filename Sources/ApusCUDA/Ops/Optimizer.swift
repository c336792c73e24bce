public import ApusKernels
public import ApusTensor

extension CUDABackend: OptimizerOp {
    public func adamW(
        _ buffers: AdamWBuffers, _ step: AdamWStep, gradientScale: Tensor, rounding: RandomStream, firstElement: UInt64
    ) throws {
        let (weights, count) = (buffers.weights, buffers.weights.count)
        precondition(weights.isContiguous && buffers.gradient.isContiguous && buffers.gradient.count == count)
        let corrections = (step.correction(step.beta1), step.correction(step.beta2))
        switch (weights.dtype, buffers.master) {
        case (.f32, _):
            try launch(
                "adamw_f32", .flat(count), weights, buffers.first, buffers.second, buffers.gradient, count,
                step.learningRate, step.beta1, step.beta2, step.epsilon, step.weightDecay, corrections.0, corrections.1,
                gradientScale, true)
        case (_, let master?):
            try launch(
                "adamw_bf16", .flat(count), weights, master, buffers.first, buffers.second, buffers.gradient, count,
                step.learningRate, step.beta1, step.beta2, step.epsilon, step.weightDecay, corrections.0, corrections.1,
                gradientScale, true)
        case (_, nil):
            try launch(
                "adamw_bf16_pure", .flat(count), weights, buffers.first, buffers.second, buffers.gradient, count,
                step.learningRate, step.beta1, step.beta2, step.epsilon, step.weightDecay, corrections.0, corrections.1,
                gradientScale, true, rounding.seed, UInt64(rounding.word0), UInt64(rounding.word1), firstElement)
        }
    }

    public func clipFactor(sumOfSquares: Tensor, limit: Float, into scale: Tensor) throws {
        try launch("clip_factor", .blocks(1, threads: 1), scale, sumOfSquares, limit)
    }
}
