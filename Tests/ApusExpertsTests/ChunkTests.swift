import ApusKernels
import ApusNN
import ApusTensor
import ApusTestSupport
import Testing

@testable import ApusExperts

// Shape letters: T tokens, D model width, E experts, K choices per token, R routed rows.

/// Parts of a layer's work, by tokens and by experts, against the whole.
///
/// That an exchange is finished once at most is no test but a property of its type: `InFlight` is `~Copyable` and
/// `finish()` consumes it, so a second call does not compile.
@Suite struct ChunkTests {
    static let configurations: [MoEConfiguration] = [
        MoEConfiguration(
            experts: 5, choices: 2, width: 7, router: RouterConfiguration(renormalizes: true),
            losses: RouterLosses(balance: 0.5, z: 0.1, importance: 0.3)),
        MoEConfiguration(experts: 5, choices: 5, width: 7, activation: .gelu, sharedWidth: 3, isResidual: true),
        MoEConfiguration(
            experts: 5, choices: 2, width: 7, policy: .capacity(factor: 0.8, minimum: 1, order: .random), sharedWidth: 3
        ),
        MoEConfiguration(
            experts: 5, choices: 1, width: 7, policy: .capacity(factor: 0.8, minimum: 1, order: .position),
            bank: .padded),
    ]

    @Test(arguments: configurations, [1, 3, 40, 101])
    func `a layer in chunks is the layer`(_ configuration: MoEConfiguration, _ tokens: Int) throws {
        let backend = CPUBackend(threadCount: 2)
        let whole = try LayerFixture(configuration, width: 9, backend: backend)
        let x = try whole.input(tokens)
        let dy = try whole.input(tokens, seed: 8)
        let expected = try LayerPass(whole, x, dy: dy, LayerPass.Setting(step: 1))
        for chunks in [2, 3, 7] {
            let cut = try LayerFixture(configuration, width: 9, chunks: chunks, backend: backend)
            let pass = try LayerPass(cut, x, dy: dy, LayerPass.Setting(step: 1))
            #expect(pass.kept == expected.kept)
            expectClose(pass.output, expected.output.doubles, within: 1e-6, "\(chunks) chunks, output")
            expectClose(
                try #require(pass.inputGradient), try #require(expected.inputGradient).doubles, within: 1e-6,
                "\(chunks) chunks, gradient of x")
            for (left, right) in zip(whole.store.parameters, cut.store.parameters) {
                expectClose(
                    try #require(try right.gradient()), try #require(try left.gradient()).doubles, within: 1e-6,
                    "\(chunks) chunks, \(left.name)")
            }
        }
    }

    /// As ranks that hold a range of experts each: rows of the others are not theirs, results add up.
    @Test(arguments: [[0..<2, 2..<5], [0..<1, 1..<5], [0..<1, 1..<2, 2..<3, 3..<4, 4..<5]])
    func `ranges of a bank's experts add up to the bank`(_ ranges: [Range<Int>]) throws {
        let fixture = try LayerFixture(ChunkTests.configurations[0], width: 9)
        let backend = fixture.backend
        let x = try fixture.input(33)
        let dy = try fixture.input(33, seed: 8)
        let decision = try LayerPass(fixture, x).routing.decision
        func run(_ bank: any ExpertBank, _ kept: [Int32]) throws -> (output: Tensor, gradient: Tensor) {
            let tape = Tape(backend: backend)
            let input = tape.leaf(x)
            let ids = try backend.allocator.tensor(kept, decision.ids.shape)
            let part = RoutingDecision(
                ids: ids, kept: ids, experts: bank.experts, capacities: [], isPadded: false,
                permutation: try backend.sortByExpert(ids, experts: bank.experts))
            let weights = try backend.empty(ids.shape, .f32)
            backend.fill(weights, with: 0.5)
            let dispatcher = LocalDispatcher()
            let results = try bank(dispatcher.dispatch(input, part, on: tape).finish(), on: tape)
            let output = try dispatcher.combine(
                results, weights: .constant(weights), part, base: nil, on: tape
            ).finish()
            try tape.addRoot(output, seed: dy)
            try tape.backward()
            return (output.tensor, try #require(tape.gradient(of: input)))
        }
        fixture.clearGradients()
        let kept = decision.kept.array(of: Int32.self)
        let whole = try run(fixture.bank, kept)
        let gradients = try fixture.store.parameters.map { try $0.gradient()?.doubles ?? [] }
        fixture.clearGradients()
        var output = Array(repeating: Float(0), count: x.count)
        var gradient = output
        for range in ranges {
            let bank = fixture.bank.restricted(to: range)
            #expect(bank.experts == range.count)
            let own = kept.map { range.contains(Int($0)) ? $0 - Int32(range.lowerBound) : -1 }
            let part = try run(bank, own)
            for (index, value) in part.output.floats().enumerated() { output[index] += value }
            for (index, value) in part.gradient.floats().enumerated() { gradient[index] += value }
        }
        expectClose(output, whole.output.doubles, within: 1e-6, "output")
        expectClose(gradient, whole.gradient.doubles, within: 1e-6, "gradient of x")
        for (index, parameter) in fixture.store.parameters.enumerated() {
            expectClose(try #require(try parameter.gradient()), gradients[index], within: 1e-6, parameter.name)
        }
    }

    /// As one rank that computes its experts in turn: rows lie in one buffer, and a range of offsets begins above 0.
    @Test func `a range of offsets computes its rows of the whole`() throws {
        let fixture = try LayerFixture(ChunkTests.configurations[0], width: 9)
        let backend = fixture.backend
        let x = try fixture.input(33)
        let tape = Tape(backend: backend, isRecording: false)
        let permutation = try LayerPass(fixture, x).routing.decision.permutation
        let rows = try backend.empty(Shape(66, 9), .f32)
        try backend.gatherRows(x, index: permutation.rowToToken, scale: nil, into: rows)
        let whole = try fixture.bank(RoutedRows(rows: .constant(rows), offsets: permutation.offsets), on: tape)
        let offsets = permutation.offsets.array(of: Int32.self).map(Int.init)
        for range in [0..<2, 2..<5] {
            let part = try fixture.bank.restricted(to: range)(
                RoutedRows(
                    rows: .constant(rows), offsets: permutation.offsets[range.lowerBound..<range.upperBound + 1]),
                on: tape)
            let own = offsets[range.lowerBound]..<offsets[range.upperBound]
            #expect(!own.isEmpty)
            expectClose(part.tensor[own], whole.tensor[own].doubles, within: 1e-6, "experts \(range)")
        }
    }
}
