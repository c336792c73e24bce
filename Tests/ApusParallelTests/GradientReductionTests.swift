import ApusCollectives
import ApusKernels
import ApusTensor
import Testing

@testable import ApusNN
@testable import ApusParallel

/// Gradients that are added part by part while backward goes on.
@Suite struct GradientReductionTests {
    private static let ranks = 2
    /// Three layers, each large enough for a part of its own.
    private static let layers = 3
    private static let size = GradientPart.fewest

    /// What a rank has once all gradients are added.
    private struct Outcome: Sendable {
        /// Exchanges begun after 0, 1, 2 and 3 layers.
        var begun: [Int] = []
        /// Whether they are over when the last layer's has begun.
        var waits = true
        /// The sums that are here, by layer, where each layer has one value; `nil` where it has several.
        var sums: [Float?] = []
        var shares: [Bool] = []
        var gradientBytes = 0
    }

    private func reduce(_ stage: ZeROStage, delay: Duration) throws -> [Outcome] {
        try InProcess.run(ranks: Self.ranks, delay: TransferDelay(perOperation: delay)) { world in
            let ledger = CollectiveLedger()
            let layout = try LayoutConfiguration(data: Self.ranks).layout(ranks: Self.ranks)
            let groups = try ParallelGroups(layout, world: CountingCollective(world, in: ledger))
            let backend = CPUBackend(threadCount: 1)
            let store = try ParameterStore(
                (0..<Self.layers).map { layer in
                    Parameter("w\(layer)", Shape(Self.size), layer: layer, initializer: .constant(1))
                }, backend: backend, precision: .f32, isTrained: true,
                share: stage > .none ? groups.share : { _ in .whole })
            ledger.clear()
            let parts = store.groups[0].gradientParts
            #expect(parts.count == Self.layers)
            let reduction = GradientReduction(store, over: groups, stage: stage, backend: backend)
            var outcome = Outcome()
            reduction.begin()
            let kind: OperationSignature.Kind = stage > .none ? .reduceScatter : .allReduce
            for layer in (-1..<Self.layers).reversed() {
                outcome.begun.append(ledger.total(of: kind, dtype: .f32).calls)
                guard layer >= 0 else { break }
                backend.fill(try parts[layer].gradients(), with: Float((world.rank + 1) * (layer + 1)))
                let begin = ContinuousClock.now
                try reduction.complete(from: layer)
                if layer == Self.layers - 1 { outcome.waits = begin.duration(to: .now) >= delay }
            }
            try reduction.finish()
            outcome.sums = try parts.map { part in
                let values = Set(try part.heldGradients().floats())
                return values.count == 1 ? values.first : nil
            }
            outcome.shares = parts.map {
                $0.heldRange == $0.ownRange && $0.ownRange.count * Self.ranks == $0.range.count
            }
            outcome.gradientBytes = backend.allocator.statistics[.gradients]
            return outcome
        }
    }

    @Test(arguments: ZeROStage.allCases)
    func `a layer's exchange begins when its gradients are complete, and nobody waits for it`(_ stage: ZeROStage) throws
    {
        for outcome in try reduce(stage, delay: .seconds(1)) {
            #expect(outcome.begun == [0, 1, 2, 3])
            #expect(!outcome.waits)
            #expect(outcome.sums == [3, 6, 9])
        }
    }

    @Test(arguments: ZeROStage.allCases)
    func `with ZeRO a rank keeps its shares of the sums, and no more memory than they need`(_ stage: ZeROStage) throws {
        for outcome in try reduce(stage, delay: .zero) {
            #expect(outcome.shares.allSatisfy { $0 == (stage > .none) })
            let whole = Self.layers * Self.size * 4
            #expect(outcome.gradientBytes == (stage > .none ? whole / Self.ranks : whole))
        }
    }
}
