import ApusExperts
import ApusKernels
import ApusNN
import ApusTensor
import ApusTestSupport
import Testing

// Shape letters: T tokens, D model width, F expert width, E experts, K choices per token.

/// The layer with `bf16` weights and activations, and what it asks of memory.
@Suite struct PrecisionTests {
    static let configurations: [MoEConfiguration] = [
        MoEConfiguration(
            experts: 5, choices: 2, width: 40, losses: RouterLosses(balance: 0.5, z: 0.1, importance: 0.3)),
        MoEConfiguration(
            experts: 5, choices: 2, width: 40, activation: .gelu,
            router: RouterConfiguration(scoring: .topKThenSoftmax),
            policy: .capacity(factor: 1, minimum: 1, order: .random), bank: .padded, sharedWidth: 24, isResidual: true),
        MoEConfiguration(
            experts: 5, choices: 3, width: 40, activation: .geluTanh,
            router: RouterConfiguration(scoring: .sigmoid, renormalizes: true, jitter: 0.01, gumbel: true),
            sharedWidth: 24),
    ]

    @Test(arguments: [Precision.bf16, .bf16Pure], configurations)
    func `bf16 is close to f32 and routes in f32`(_ precision: Precision, _ configuration: MoEConfiguration) throws {
        let wide = try LayerFixture(configuration, width: 48)
        let narrow = try LayerFixture(configuration, width: 48, precision: precision)
        let x = try narrow.input(100)
        let dy = try narrow.input(100, seed: 8)
        let setting = LayerPass.Setting(step: 1)
        let pass = try LayerPass(narrow, x, dy: dy, setting)
        let expected = try LayerPass(
            wide, wide.backend.allocator.tensor(x.floats(), x.shape),
            dy: wide.backend.allocator.tensor(dy.floats(), dy.shape), setting)
        // The same input, and a router weight of f32 in both: the routing is that of f32.
        #expect(try narrow.router.weight.gradient()?.dtype == .f32)
        #expect(pass.chosen == expected.chosen && pass.kept == expected.kept)
        #expect(pass.routing.weights.tensor.dtype == .f32)
        expectClose(pass.routing.weights.tensor, expected.routing.weights.tensor.doubles, within: 1e-6, "weights")
        for kind in RouterLossKind.allCases {
            guard let value = expected.value(kind) else { continue }
            #expect(abs(try #require(pass.value(kind)) - value) < 1e-5 * value, "\(kind)")
        }
        #expect(pass.output.dtype == .bf16)
        expectClose(pass.output, expected.output.doubles, within: 2e-2, "output")
        expectClose(
            try #require(pass.inputGradient), try #require(expected.inputGradient).doubles, within: 2e-2,
            "gradient of x")
        for (left, right) in zip(wide.store.parameters, narrow.store.parameters) {
            expectClose(
                try #require(try right.gradient()), try #require(try left.gradient()).doubles, within: 2e-2, left.name)
        }
    }

    @Test(arguments: Precision.allCases, configurations)
    func `a steady step asks the system for nothing and leaves nothing`(
        _ precision: Precision, _ configuration: MoEConfiguration
    ) throws {
        for chunks in [1, 3] {
            let fixture = try LayerFixture(configuration, width: 48, chunks: chunks, precision: precision)
            let x = try fixture.input(100)
            let dy = try fixture.input(100, seed: 8)
            let step = { (index: Int) in
                _ = try LayerPass(
                    fixture, x, dy: dy,
                    LayerPass.Setting(layout: try fixture.layout([37, 63]), trace: RoutingTrace(), step: index))
                fixture.clearGradients()
            }
            var index = 0
            try expectNoLeak(in: fixture.backend.allocator) {
                try expectSteadyMemory(in: fixture.backend.allocator, runs: 5) {
                    try step(index)
                    index += 1
                }
            }
        }
    }

    /// Buffers begin undefined; here they begin as NaN, and no bit of a pass may show it.
    @Test(arguments: Precision.allCases, configurations)
    func `a pass reads nothing that it has not written`(
        _ precision: Precision, _ configuration: MoEConfiguration
    ) throws {
        for chunks in [1, 3] {
            let fixture = try LayerFixture(configuration, width: 48, chunks: chunks, precision: precision)
            let x = try fixture.input(100)
            let dy = try fixture.input(100, seed: 8)
            let setting = LayerPass.Setting(layout: try fixture.layout([37, 63]), step: 1)
            let run = {
                let pass = try LayerPass(fixture, x, dy: dy, setting)
                return try [pass.output.bits, pass.inputGradient?.bits ?? []]
                    + fixture.store.parameters.map { try $0.gradient()?.bits ?? [] }
            }
            let clean = try run()
            try poison(fixture.backend.allocator)
            let poisoned = try run()
            #expect(poisoned == clean, "\(chunks) chunks")
        }
    }

    /// Leaves blocks of every small size class full of ones in the allocator's cache: NaN as `f32` and as `bf16`.
    private func poison(_ allocator: CachingAllocator) throws {
        allocator.releaseCache()
        var blocks: [Storage] = []
        var byteCount = 256
        while byteCount <= 1 << 17 {
            for _ in 0..<12 {
                let block = try allocator.allocate(byteCount: byteCount, purpose: .workspace)
                block.pointer.initializeMemory(as: UInt8.self, repeating: 0xff, count: block.byteCount)
                blocks.append(block)
            }
            byteCount = blocks[blocks.count - 1].byteCount + 1
        }
    }

    @Test(arguments: configurations)
    func `the number of threads changes no bit of a layer`(_ configuration: MoEConfiguration) throws {
        let passes = try [1, 2, 5].map { threads in
            let fixture = try LayerFixture(configuration, width: 48, backend: CPUBackend(threadCount: threads))
            let pass = try LayerPass(
                fixture, fixture.input(100), dy: fixture.input(100, seed: 8),
                LayerPass.Setting(layout: try fixture.layout([37, 63]), step: 1))
            return (pass, try fixture.gradient("gate").map(\.bitPattern))
        }
        for (pass, gate) in passes.dropFirst() {
            #expect(pass.kept == passes[0].0.kept)
            expectSameBits(pass.routing.weights.tensor, passes[0].0.routing.weights.tensor, "weights")
            for kind in RouterLossKind.allCases { #expect(pass.value(kind) == passes[0].0.value(kind)) }
            expectSameBits(pass.output, passes[0].0.output, "output")
            #expect(gate == passes[0].1)
        }
    }
}
