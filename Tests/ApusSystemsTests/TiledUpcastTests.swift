import ApusKernels
import ApusTensor
import Testing

@testable import ApusSystems

/// The optimizer's step in tiles.
struct TiledUpcastTests {
    /// Sizes around the tile, and one that is no multiple of anything.
    @Test(arguments: [1, 999, 1000, 1001, 10_007])
    func `all ways come to the same weights`(_ parameters: Int) throws {
        let spikes = try OptimizerSpike.measure(
            parameters: parameters, tile: 1000, steps: 3, backend: CPUBackend(threadCount: 2))
        #expect(spikes.map(\.way) == OptimizerSpike.Way.allCases)
        #expect(spikes.agree)
        #expect(Set(spikes[0].weights).count > min(parameters, 100) / 2)
    }

    @Test func `extra memory is the shard, the tile, and none`() throws {
        let (parameters, tile) = (1 << 20, 1 << 16)
        let spikes = try OptimizerSpike.measure(
            parameters: parameters, tile: tile, steps: 2, backend: CPUBackend(threadCount: 2))
        #expect(spikes.map(\.expected) == [4 * parameters, 4 * tile, 0, 0])
        #expect(spikes.map(\.measured) == [4 * parameters, 4 * tile, 0, 0])
        #expect(spikes.allSatisfy { $0.seconds > 0 })
        // Weights 2, master 4, moments 8 bytes; gradients 2, or 4 where nothing widens them. A flag of 256 bytes.
        #expect(spikes.map(\.resident) == [16, 16, 18, 8].map { $0 * parameters + 256 })
    }

    /// Several runs of a shard, of which the last tile of each is short.
    @Test func `tiles end where a run does`() throws {
        let backend = CPUBackend(threadCount: 1)
        func runs() throws -> [AdamWRun] {
            try [70, 130].enumerated().map { index, count in
                let stream = RandomStream(seed: UInt64(index), purpose: .initialization)
                let tensors = try [DType.bf16, .f32, .f32, .f32, .bf16].map { try backend.zeros(Shape(count), $0) }
                for tensor in [tensors[1], tensors[4]] {
                    try backend.fillRandom(tensor, .normal(mean: 0, deviation: 1), stream: stream, first: 0)
                }
                return AdamWRun(
                    AdamWBuffers(
                        weights: tensors[0], master: tensors[1], first: tensors[2], second: tensors[3],
                        gradient: tensors[4]),
                    AdamWStep(learningRate: 0.1, beta1: 0.9, beta2: 0.9, epsilon: 1e-8, weightDecay: 0, step: 1),
                    rounding: RandomStream(seed: 0, purpose: .stochasticRounding))
            }
        }
        let scale = try backend.tensor([Float(0.5)], Shape(1))
        let (tiled, whole) = (try runs(), try runs())
        try TiledUpcast(tile: 64).step(tiled, gradientScale: scale, backend: backend)
        try TiledUpcast(tile: nil).step(whole, gradientScale: scale, backend: backend)
        for (one, other) in zip(tiled, whole) {
            let masters = [one, other].compactMap { $0.buffers.master?.floats() }
            #expect(masters.count == 2 && masters[0] == masters[1])
            #expect(try backend.array(one.buffers.second, of: Float.self).allSatisfy { $0 > 0 })
        }
    }
}
