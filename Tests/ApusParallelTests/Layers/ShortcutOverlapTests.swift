import ApusCollectives
import ApusExperts
import ApusKernels
import ApusModels
import ApusNN
import ApusTensor
import ApusTestSupport
import Glibc
import Testing

@testable import ApusParallel

// Shape letters: T tokens, D model width.

/// A pair of blocks whose experts read by a shortcut takes less than the sum of its parts, forward and backward (ScMoE's
/// overlapping). The network is a delay, the dense layers are sleeps: no processor is needed for either.
@Suite(.serialized)
struct ShortcutOverlapTests {
    private static let dense = 80
    private static let exchange = 100
    /// Two attentions, a dense layer and a shared expert; the way to the experts and the way back.
    private static let sumOfParts = Duration.milliseconds(4 * dense + 2 * exchange)
    /// Clearly below it: what is to be hidden is 180 ms or more.
    private static let overlapped = sumOfParts * 4 / 5

    /// The layers of a rank with half of the experts, each dense one slow.
    private struct SlowPartition: Partition {
        let base: TensorPartition

        func holding(of name: String, _ shape: Shape, cut: Cut) throws -> Holding {
            try base.holding(of: name, shape, cut: cut)
        }
        func experts(of count: Int, layer: Int) throws -> Range<Int> { try base.experts(of: count, layer: layer) }
        func mixture(_ local: MoELayer, experts: Int) throws -> MoELayer { try base.mixture(local, experts: experts) }
        func attention(_ local: any DivisibleAttention) -> any AttentionLayer { SlowAttention(local: local) }
        func feedForward(_ local: FeedForward, layer: Int) -> any FeedForwardLayer { SlowFeedForward(local: local) }
        func denseExpert(_ local: FeedForward, layer: Int) -> any FeedForwardLayer { SlowFeedForward(local: local) }
    }

    private struct SlowAttention: AttentionLayer {
        let local: any DivisibleAttention
        var rotary: RotaryTable? { local.rotary }
        func callAsFunction(_ x: Variable, _ context: ForwardContext) throws -> Variable {
            ShortcutOverlapTests.idling(try local(x, context), on: context.tape)
        }
    }

    private struct SlowFeedForward: FeedForwardLayer {
        let local: FeedForward
        func callAsFunction(_ x: Variable, on tape: Tape) throws -> Variable {
            ShortcutOverlapTests.idling(try local(x, on: tape), on: tape)
        }
    }

    /// The value itself, after a sleep; its adjoint sleeps as long.
    private static func idling(_ x: Variable, on tape: Tape) -> Variable {
        usleep(UInt32(dense * 1000))
        return tape.record("idling", inputs: [x], output: x.tensor) { flow in
            guard let gradient = flow.output() else { return }
            usleep(UInt32(dense * 1000))
            try flow.accumulate(gradient, into: x)
        }
    }

    private struct Times {
        let forward: Duration
        let backward: Duration
    }

    /// The times of the slower of two ranks over a dense block and a mixture's.
    private static func measure(
        _ shortcut: ShortcutConfiguration?, checkpointing: Bool = false
    ) throws -> Times {
        // Padded, so that no counts have to travel first.
        let moe = MoEConfiguration(
            experts: 2, choices: 1, width: 8, policy: .capacity(factor: 2, minimum: 1, order: .position), bank: .padded,
            sharedWidth: 8, sharedCombination: .gate, shortcut: shortcut)
        let model = ModelConfiguration(
            vocabulary: 12, width: 8, heads: 2, maximumPositions: 8, feedForward: [.dense(width: 8), .moe(moe)])
        let delay = TransferDelay(perOperation: .milliseconds(exchange))
        let times = try InProcess.run(ranks: 2, delay: delay) { world in
            let alone = try #require(try world.split(name: "alone", color: world.rank))
            let partition = SlowPartition(
                base: TensorPartition(
                    over: alone, experts: ExpertParallelOptions(hasSameCapacities: true), expertGroup: { _ in world }))
            let backend = CPUBackend(threadCount: 1)
            let transformer = try Transformer(
                model, backend: backend, precision: .f32, isTrained: true, partition: partition)
            try transformer.store.initialize(seed: 3, backend: backend)
            let tokens = try backend.allocator.integers((0..<8).map { ($0 * 5 + world.rank) % 12 })
            let tape = Tape(backend: backend)
            let context = MoEContext(
                forward: ForwardContext(
                    tape: tape, layout: try .sequences([8], backend: backend), trainingStep: 1))
            let begin = ContinuousClock.now
            _ = try transformer.loss(
                tokens: tokens, targets: tokens, scale: 1, checkpointing: checkpointing, context)
            let middle = ContinuousClock.now
            try tape.backward()
            return Times(forward: begin.duration(to: middle), backward: middle.duration(to: .now))
        }
        return Times(forward: times.map(\.forward).max() ?? .zero, backward: times.map(\.backward).max() ?? .zero)
    }

    /// Whether it holds for one of a few runs: what does not overlap never does, for sleeps are not short.
    private static func once(_ holds: () throws -> Bool) throws -> Bool {
        for _ in 0..<5 where try holds() { return true }
        return false
    }

    /// Everything but the shared expert, beside which the rows travel to the experts.
    @Test func `without a shortcut a pair takes nearly the sum`() throws {
        let times = try Self.measure(nil)
        let least = Self.sumOfParts - .milliseconds(Self.dense)
        #expect(times.forward >= least && times.backward >= least)
    }

    @Test(arguments: [ShortcutConfiguration.Position.attention, .input])
    func `a shortcut hides the exchanges in forward and backward`(_ position: ShortcutConfiguration.Position) throws {
        let hides = try Self.once {
            let times = try Self.measure(ShortcutConfiguration(position: position))
            return times.forward < Self.overlapped && times.backward < Self.overlapped
        }
        #expect(hides)
    }

    /// The way there beside attention, the way back beside the shared expert: less than with states of the block before.
    @Test func `a shortcut from the block's own input hides most of them`() throws {
        let hides = try Self.once {
            let times = try Self.measure(ShortcutConfiguration(position: .output))
            return times.forward < Self.overlapped && times.backward < Self.overlapped
        }
        #expect(hides)
    }

    /// Each of the blocks keeps to itself: the experts are begun in the second, which runs twice.
    @Test func `checkpointed blocks overlap within a block`() throws {
        let hides = try Self.once {
            let times = try Self.measure(ShortcutConfiguration(), checkpointing: true)
            return times.forward < Self.overlapped && times.backward < Self.overlapped * 2
        }
        #expect(hides)
    }
}
