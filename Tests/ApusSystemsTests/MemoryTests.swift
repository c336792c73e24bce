import ApusCollectives
import ApusKernels
import ApusModels
import ApusNN
import ApusParallel
import ApusTensor
import ApusTraining
import Testing

@testable import ApusSystems

/// Bytes of state against the formulas.
struct MemoryTests {
    struct Case: Sendable, CustomTestStringConvertible {
        var ranks = 8
        var tensor = 2
        var expert = 2
        var zero = ZeROStage.optimizerState
        var precision = Precision.bf16

        var testDescription: String {
            "\(ranks) ranks, tensor \(tensor), expert \(expert), ZeRO-\(zero.rawValue), \(precision.rawValue)"
        }

        var bench: TEDBench {
            var bench = TEDBench().forState
            (bench.ranks, bench.tensor, bench.expert) = (ranks, tensor, expert)
            (bench.expertsPerRank, bench.zero, bench.precision) = (8 / expert, zero, precision)
            return bench
        }
    }

    @Test(arguments: [
        Case(), Case(zero: .none), Case(zero: .gradients), Case(precision: .f32), Case(precision: .bf16Pure),
        Case(tensor: 4, expert: 2), Case(tensor: 1, expert: 8), Case(tensor: 1, expert: 2, precision: .f32),
        Case(ranks: 4, tensor: 4, expert: 1), Case(ranks: 2, tensor: 1, expert: 1, zero: .none),
        Case(ranks: 16, tensor: 4, expert: 4),
    ])
    func `state is what the formulas say`(_ layout: Case) throws {
        let bench = layout.bench
        let recipe = bench.recipe
        let measured = try InProcess.run(ranks: layout.ranks) { world in
            try TEDState.measure(recipe, over: world, backend: CPUBackend(threadCount: 1))
        }
        let counts = recipe.model.parameterCounts()
        let paper = TEDMemory.paper(
            nonExpert: counts.total - counts.experts, expert: counts.experts,
            TEDMemory.Degrees(ranks: layout.ranks, tensor: layout.tensor, expert: layout.expert),
            precision: layout.precision, zero: layout.zero)
        for (rank, state) in measured.enumerated() {
            let memory = TEDMemory(recipe, on: try bench.layout(), rank: rank)
            // To the byte, padding and size classes included.
            #expect(state.tensors == memory.whole)
            #expect(state.whole == memory.allocatedWhole)
            #expect(state.reduced == memory.allocatedReduced)
            // The allocator's own counts of the closed form, which knows of none of them.
            expectNear(state.whole.parameters, paper.parameters)
            expectNear(state.whole.gradients, paper.gradients)
            expectNear(state.whole.optimizerState, paper.optimizerState)
        }
    }

    private func expectNear(_ found: Int, _ wanted: Int, sourceLocation: SourceLocation = #_sourceLocation) {
        #expect(abs(found - wanted) * 50 <= wanted, "\(found) of \(wanted)", sourceLocation: sourceLocation)
    }

    /// Shares of a vocabulary and of padding that do not come out even.
    @Test func `odd sizes, to the byte`() throws {
        var bench = Case(tensor: 4, expert: 2).bench
        (bench.width, bench.hidden, bench.vocabulary) = (80, 56, 253)
        var recipe = bench.recipe
        recipe.model.queryKeyNorm = .head
        recipe.model.attentionBias = true
        let model = recipe
        let states = try InProcess.run(ranks: bench.ranks) { world in
            try TEDState.measure(model, over: world, backend: CPUBackend(threadCount: 1))
        }
        for (rank, state) in states.enumerated() {
            let memory = TEDMemory(recipe, on: try bench.layout(), rank: rank)
            #expect(state.tensors == memory.whole && state.whole == memory.allocatedWhole)
        }
        #expect(Set(states.map(\.tensors.parameters)).count > 1)
    }

    /// Groups of more than 4 Mi elements on a rank, whose gradients are several buffers.
    @Test func `large groups are cut into parts`() throws {
        var bench = Case(ranks: 2, tensor: 1, expert: 2).bench
        (bench.layers, bench.zero) = (8, .gradients)
        let recipe = bench.recipe
        let memory = TEDMemory(recipe, on: try bench.layout(), rank: 0)
        #expect(memory.groups.map(\.parts.count).max() ?? 0 > 1)
        let states = try InProcess.run(ranks: 2) { world in
            try TEDState.measure(recipe, over: world, backend: CPUBackend(threadCount: 1))
        }
        for state in states {
            #expect(state.tensors == memory.whole && state.whole == memory.allocatedWhole)
            #expect(state.reduced == memory.allocatedReduced)
        }
        let traffic = try TEDTraffic(recipe, on: bench.layout())
        let step = try TEDStep.inProcess(recipe, ranks: 2)[1]
        #expect(step.total.only(.tensor, .expert, .data, .expertData) == traffic.step(rank: 1))
        #expect(StateGroup.parts(of: [1 << 22, 5, 1 << 23, 7]) == [1 << 22, 5 + (1 << 23), 7])
        #expect(StateGroup.parts(of: []) == [] && StateGroup.parts(of: [3, 4]) == [7])
    }

    @Test func `size classes are the allocator's`() throws {
        let allocator = CachingAllocator()
        for bytes in [0, 1, 256, 257, 511, 512, 513, 576, 577, 1000, 1024, 1025, 4097, 65_536, 65_537, 1_000_003] {
            let storage = try allocator.allocate(byteCount: bytes, purpose: .workspace)
            #expect(storage.byteCount == AllocatedBytes.block(of: bytes), "\(bytes) bytes")
        }
    }

    /// A base of 6.7 B with 16 experts is the paper's 40 B; ZeRO-1 over 128 ranks, tensor 4.
    @Test func `the closed form of the paper's largest model`() {
        let base = 6_720_000_000
        let bytes = TEDMemory.paper(
            nonExpert: base * 2 / 3, expert: 16 * base / 3, TEDMemory.Degrees(ranks: 128, tensor: 4, expert: 16),
            precision: .bf16Pure, zero: .optimizerState)
        // Weights and gradients of 2 bytes each: 4 P / Gt, as with Ge = E; bf16-pure has 4 bytes of moments.
        #expect(bytes.parameters + bytes.gradients == base)
        #expect(bytes.optimizerState / 4 == (base * 2 / 3 + 16 * base / 3) / 128)
    }

    @Test func `the largest base is foretold within a tenth`() throws {
        var bench = TEDBench()
        (bench.ranks, bench.tensor, bench.expert, bench.layers) = (2, 1, 2, 2)
        (bench.width, bench.sequence, bench.microBatch) = (64, 32, 1)
        let limit = 12 << 20
        let found = try LargestBase.search(bench, limit: limit)
        #expect(found.isWithinTolerance, "\(found.foretoldBase) foretold, \(found.foundBase) found")
        #expect(found.peak <= limit && found.peak * 10 > limit * 9 && found.state < found.peak)
        // It is the largest: a little more memory lets a larger one train.
        let larger = try LargestBase.search(bench, limit: limit * 5 / 4)
        #expect(larger.found > found.found)
        #expect(throws: TEDError.self) { try LargestBase.search(bench, limit: 1 << 16) }
    }
}
