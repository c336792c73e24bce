public import ApusKernels
import ApusNN
import ApusTensor

// Shape letters: n parameters of a rank's shard, t of a tile.

/// What the optimizer's step of a shard takes beside the state that is there anyway (DeepSpeed-TED section 4, the spike
/// that tiles take away), by the allocator's account, for each way of taking it.
public struct OptimizerSpike: Sendable {
    /// A way to take the step.
    public enum Way: String, Sendable, CaseIterable {
        /// 16-bit gradients, all widened first.
        case whole = "widened at once"
        /// 16-bit gradients, widened tile by tile.
        case tiled = "widened in tiles"
        /// Apus' own step with `f32` gradients and master weights: precision `bf16`.
        case fused = "fused"
        /// Apus' own step with 16-bit gradients and moments: precision `bf16-pure`.
        case fusedPure = "fused, bf16-pure"
    }

    /// How.
    public let way: Way
    /// Bytes that it should take: 4 n, 4 t, or none.
    public let expected: Int
    /// Bytes above what was live before, at the highest moment.
    public let measured: Int
    /// Seconds of a step, the median.
    public let seconds: Double
    /// Bytes that the allocator counts live between steps: weights, gradients and state.
    public let resident: Int
    /// The weights after the last step, as the model reads them.
    public let weights: [Float]

    /// Takes `steps` steps of a shard of `parameters` parameters in each way, from the same weights and gradients.
    ///
    /// - Throws: ``TensorError/outOfMemory(requested:purpose:statistics:limit:)``
    public static func measure(
        parameters: Int, tile: Int = TiledUpcast.paperTile, steps: Int = 5, backend: any Backend
    ) throws -> [OptimizerSpike] {
        try Way.allCases.map { try measure($0, parameters, tile, steps, backend) }
    }

    private static func measure(
        _ way: Way, _ parameters: Int, _ tile: Int, _ steps: Int, _ backend: any Backend
    ) throws -> OptimizerSpike {
        let before = backend.allocator.statistics.totalLive
        let shard = try Shard(parameters, way, backend)
        let scale = try backend.empty(Shape(1), .f32)
        try backend.fill(scale, with: 1)
        let resident = backend.allocator.statistics.totalLive
        backend.allocator.resetPeaks()
        var seconds: [Double] = []
        for step in 1...steps {
            let begin = try backend.timeMark()
            let runs = [shard.run(step)]
            switch way {
            case .whole: try TiledUpcast(tile: nil).step(runs, gradientScale: scale, backend: backend)
            case .tiled: try TiledUpcast(tile: tile).step(runs, gradientScale: scale, backend: backend)
            case .fused, .fusedPure: try backend.adamW(runs, gradientScale: scale)
            }
            seconds.append(try backend.timeMark().seconds(since: begin))
        }
        let widest = way == .whole ? parameters : way == .tiled ? min(tile, parameters) : 0
        return OptimizerSpike(
            way: way, expected: 4 * widest,
            measured: backend.allocator.statistics.totalPeak - resident, seconds: seconds.sorted()[steps / 2],
            resident: resident - before, weights: try shard.values(backend))
    }

    /// A shard's buffers.
    private struct Shard {
        let buffers: AdamWBuffers

        init(_ count: Int, _ way: Way, _ backend: any Backend) throws {
            let precision: Precision = way == .fusedPure ? .bf16Pure : .bf16
            let gradientType: DType = way == .fused ? .f32 : .bf16
            let weights = try backend.empty(Shape(count), .bf16, .parameters)
            try backend.fillRandom(
                weights, .normal(mean: 0, deviation: 0.02), stream: RandomStream(seed: 1, purpose: .initialization),
                first: 0)
            let narrow = try backend.empty(Shape(count), .bf16, .gradients)
            try backend.fillRandom(
                narrow, .normal(mean: 0, deviation: 0.01), stream: RandomStream(seed: 2, purpose: .initialization),
                first: 0)
            var gradient = narrow
            if gradientType == .f32 {
                gradient = try backend.empty(Shape(count), .f32, .gradients)
                try backend.convert(narrow, into: gradient)
            }
            let master = precision.hasMaster ? try backend.empty(Shape(count), .f32, .optimizerState) : nil
            if let master { try backend.convert(weights, into: master) }
            buffers = AdamWBuffers(
                weights: weights, master: master,
                first: try backend.zeros(Shape(count), precision.momentType, .optimizerState),
                second: try backend.zeros(Shape(count), precision.momentType, .optimizerState), gradient: gradient)
        }

        func run(_ step: Int) -> AdamWRun {
            let constants = AdamWStep(
                learningRate: 1e-3, beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weightDecay: 0.1, step: step)
            return AdamWRun(
                buffers, constants, rounding: RandomStream(seed: 3, purpose: .stochasticRounding, step: step))
        }

        func values(_ backend: any Backend) throws -> [Float] {
            let wide = try backend.empty(buffers.weights.shape, .f32, .workspace)
            try backend.convert(buffers.weights, into: wide)
            return try backend.array(wide, of: Float.self)
        }
    }
}

extension [OptimizerSpike] {
    /// Whether the three ways that keep `f32` masters came to the same weights, to the bit.
    public var agree: Bool {
        let wide = filter { $0.way != .fusedPure }
        return wide.dropFirst().allSatisfy { $0.weights.map(\.bitPattern) == wide[0].weights.map(\.bitPattern) }
    }
}
