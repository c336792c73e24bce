import ApusCollectives
import ApusKernels
import ApusNN
import ApusTensor
import Testing

/// An exchange beside a dense path takes the time of the longer one, not of both, forward and backward.
///
/// This is what ScMoE section 3 builds on. The network is a delay, the dense path a sleep: no processor is needed for either.
@Suite(.serialized)
struct ExchangeOverlapTests {
    /// In which order the block `y = finish(start(x)) + dense(x)` runs and is recorded.
    enum Order {
        case startDenseFinish
        case denseStartFinish
    }

    private struct Times {
        let forward: Duration
        let backward: Duration
    }

    private static let part = 150
    private static let sumOfParts = Duration.milliseconds(2 * part)
    /// Clearly below the sum of the parts, and clearly above one part.
    private static let overlapped = sumOfParts * 3 / 4

    private static func block(_ order: Order, _ x: Variable, on tape: Tape, _ collective: any Collective) throws
        -> Variable
    {
        switch order {
        case .startDenseFinish:
            let exchange = try tape.startAllToAll(x, over: collective)
            let dense = tape.idling(x, milliseconds: part)
            return try tape.add(dense, exchange.finish())
        case .denseStartFinish:
            let dense = tape.idling(x, milliseconds: part)
            let exchange = try tape.startAllToAll(x, over: collective)
            return try tape.add(dense, exchange.finish())
        }
    }

    /// The times of the slowest rank of two, whose gradients are checked on the way.
    private static func measure(
        _ order: Order, _ schedule: BackwardSchedule, checkpointed: Bool = false
    ) throws -> Times {
        let delay = TransferDelay(perOperation: .milliseconds(part))
        let times = try InProcess.run(ranks: 2, delay: delay) { collective in
            let tape = Tape(backend: CPUBackend(threadCount: 1))
            let x = tape.leaf(try tape.backend.allocator.tensor([Float(collective.rank), 3], Shape(2, 1)))
            let begin = ContinuousClock.now
            let y =
                try checkpointed
                ? tape.checkpoint("block", inputs: [x]) { [try block(order, $1[0], on: $0, collective)] }[0]
                : block(order, x, on: tape, collective)
            let middle = ContinuousClock.now
            #expect(y.tensor.floats() == [Float(collective.rank) + [0, 3][collective.rank], [4, 6][collective.rank]])
            try tape.addRoot(y, seed: try tape.backend.allocator.tensor([Float(collective.rank), 10], Shape(2, 1)))
            try tape.backward(schedule: schedule)
            let end = ContinuousClock.now
            let gradient = tape.gradient(of: x)?.floats()
            #expect(gradient == [Float(collective.rank) + [0, 10][collective.rank], [11, 20][collective.rank]])
            return Times(forward: begin.duration(to: middle), backward: middle.duration(to: end))
        }
        return Times(forward: times.map(\.forward).max() ?? .zero, backward: times.map(\.backward).max() ?? .zero)
    }

    /// Whether one of a few runs satisfies `condition`.
    ///
    /// What does not overlap never does, for sleeps are not short; what overlaps may be held up by other programs.
    private static func once(
        _ order: Order, _ schedule: BackwardSchedule, checkpointed: Bool = false, _ condition: (Times) -> Bool
    ) throws -> Bool {
        for _ in 0..<5 where condition(try measure(order, schedule, checkpointed: checkpointed)) { return true }
        return false
    }

    @Test
    func `one after the other takes the sum of the parts`() throws {
        let times = try ExchangeOverlapTests.measure(.denseStartFinish, .reverse)
        #expect(times.forward >= ExchangeOverlapTests.sumOfParts)
        #expect(times.backward >= ExchangeOverlapTests.sumOfParts)
    }

    @Test(arguments: [false, true])
    func `a dense path between start and finish hides the exchange in forward and backward`(overlapping: Bool) throws {
        let schedule = overlapping ? BackwardSchedule.overlapping : .reverse
        let hides = try ExchangeOverlapTests.once(.startDenseFinish, schedule) {
            $0.forward < ExchangeOverlapTests.overlapped && $0.backward < ExchangeOverlapTests.overlapped
        }
        #expect(hides)
    }

    @Test
    func `the overlapping schedule hides the exchange in backward whatever the recording order`() throws {
        let hides = try ExchangeOverlapTests.once(.denseStartFinish, .overlapping) {
            $0.backward < ExchangeOverlapTests.overlapped
        }
        #expect(hides)
    }

    @Test
    func `a checkpointed block follows the schedule`() throws {
        // Backward runs the block again, without overlap in this order, and then its adjoints, with it.
        let bound = ExchangeOverlapTests.sumOfParts + ExchangeOverlapTests.overlapped
        let hides = try ExchangeOverlapTests.once(.denseStartFinish, .overlapping, checkpointed: true) {
            $0.backward < bound
        }
        #expect(hides)
    }
}
