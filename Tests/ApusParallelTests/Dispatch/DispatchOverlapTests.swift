import ApusCollectives
import ApusKernels
import ApusNN
import ApusTensor
import ApusTestSupport
import Synchronization
import Testing

@testable import ApusExperts
@testable import ApusParallel

// Shape letters: T tokens, D model width, E experts, K choices per token.

/// What is under way between start and finish.
@Suite struct DispatchOverlapTests {
    /// Hands everything on and remembers the event of the latest operation.
    private final class LatestEvent: Collective {
        let base: any Collective
        private let latest = Mutex<Event?>(nil)

        init(_ base: any Collective) { self.base = base }

        var name: String { base.name }
        var rank: Int { base.rank }
        var members: [Int] { base.members }
        var timeout: Duration { base.timeout }
        var isUnderWay: Bool { latest.withLock { $0.map { !$0.isComplete } ?? false } }

        func start(_ operation: CollectiveOperation, after stream: ApusTensor.Stream, layer: Int?) throws -> Event {
            let event = try base.start(operation, after: stream, layer: layer)
            latest.withLock { $0 = event }
            return event
        }

        func split(name: String, color: Int?, key: Int, timeout: Duration?) throws -> (any Collective)? {
            try base.split(name: name, color: color, key: key, timeout: timeout).map(LatestEvent.init)
        }

        func abort(reason: String) { base.abort(reason: reason) }
    }

    /// By way of nodes it is the hop across them, the slow one, that is under way.
    @Test(arguments: [false, true], [nil, 2])
    func `rows travel while the rank goes on`(isPadded: Bool, ranksPerNode: Int?) throws {
        let ranks = ranksPerNode == nil ? 2 : 4
        let underWay = try InProcess.run(ranks: ranks, delay: TransferDelay(perOperation: .milliseconds(250))) {
            collective in
            let whole = LatestEvent(collective)
            let nodes = try ranksPerNode.flatMap { try HierarchicalAllToAll(over: whole, ranksPerNode: $0) }
            let group = try #require((nodes?.across ?? whole) as? LatestEvent)
            let backend = CPUBackend(threadCount: 1)
            let tape = Tape(backend: backend)
            let tokens = 6
            let x = tape.leaf(try backend.allocator.random(Shape(tokens, 3), seed: 1))
            let ids = try backend.allocator.integers([0, 1, 2, 3, 0, 2], Shape(tokens, 1))
            let groups = [0..<tokens]
            let decision = RoutingDecision(
                ids: ids, kept: ids, experts: 4, capacities: isPadded ? [2] : [], isPadded: isPadded,
                permutation: try isPadded
                    ? backend.padToCapacity(ids, experts: 4, groups: groups, capacities: [2])
                    : backend.sortByExpert(ids, experts: 4))
            let weights = try backend.empty(ids.shape, .f32)
            backend.fill(weights, with: 1)
            let dispatcher = ExpertParallelDispatcher(experts: 4, group: whole, nodes: nodes)
            let there = try dispatcher.dispatch(x, decision, on: tape)
            let onTheWay = group.isUnderWay
            let rows = try there.finish()
            let arrived = !group.isUnderWay
            let back = try dispatcher.combine(
                rows.source, weights: .constant(weights), decision, base: nil, on: tape)
            let onTheWayBack = group.isUnderWay
            // Experts that return what they get give every token back.
            let same = try back.finish().tensor.floats() == x.tensor.floats()
            return [onTheWay, arrived, onTheWayBack, same]
        }
        #expect(underWay == Array(repeating: [true, true, true, true], count: ranks))
    }
}
