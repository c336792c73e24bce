import ApusCollectives
import ApusKernels
import ApusNN
import ApusTensor
import ApusTestSupport
import Testing

@testable import ApusExperts
@testable import ApusParallel

// Shape letters: T tokens, D model width, E experts.

/// A dispatcher remembers what is on its way, and nothing of passes that ended elsewhere.
@Suite struct OpenJourneyTests {
    private struct Broken: Error {}

    /// Experts that fail when they are told to, and give back what they get otherwise.
    private final class Echo: ExpertBank {
        let experts: Int
        var isBroken = false

        init(experts: Int) { self.experts = experts }

        func callAsFunction(_ rows: RoutedRows, on tape: Tape) throws -> Variable {
            if isBroken { throw Broken() }
            return rows.source
        }

        func restricted(to experts: Range<Int>) -> Echo { self }
    }

    /// A dispatcher, experts, and tokens of one of two ranks.
    private struct Bench {
        let backend = CPUBackend(threadCount: 1)
        let dispatcher: ExpertParallelDispatcher
        let bank = Echo(experts: 2)

        init(_ group: any Collective) { dispatcher = ExpertParallelDispatcher(experts: 4, group: group) }

        /// Tokens with one expert each.
        func tokens(on tape: Tape, isPadded: Bool) throws -> (x: Variable, weights: Variable, RoutingDecision) {
            let ids = try backend.allocator.integers([0, 1, 2, 3, 0, 2], Shape(6, 1))
            let weights = try backend.empty(ids.shape, .f32)
            backend.fill(weights, with: 1)
            let permutation =
                try isPadded
                ? backend.padToCapacity(ids, experts: 4, groups: [0..<6], capacities: [2])
                : backend.sortByExpert(ids, experts: 4)
            let decision = RoutingDecision(
                ids: ids, kept: ids, experts: 4, capacities: isPadded ? [2] : [], isPadded: isPadded,
                permutation: permutation)
            return (tape.leaf(try backend.allocator.random(Shape(6, 3), seed: 1)), .constant(weights), decision)
        }

        /// A whole pass; whether every token came back.
        func pass(isRecording: Bool = true, isPadded: Bool = false) throws -> Bool {
            let tape = Tape(backend: backend, isRecording: isRecording)
            let (x, weights, decision) = try tokens(on: tape, isPadded: isPadded)
            let results = try bank(dispatcher.dispatch(x, decision, on: tape).finish(), on: tape)
            let y = try dispatcher.combine(results, weights: weights, decision, base: nil, on: tape).finish()
            if isRecording {
                try tape.addRoot(y, seed: 1)
                try tape.backward()
            }
            return y.tensor.floats() == x.tensor.floats()
        }
    }

    @Test(arguments: [false, true], [false, true])
    func `whole passes leave nothing behind`(isRecording: Bool, isPadded: Bool) throws {
        let results = try InProcess.run(ranks: 2) { group in
            let bench = Bench(group)
            return try (0..<3).map { _ in
                let isWhole = try bench.pass(isRecording: isRecording, isPadded: isPadded)
                return isWhole && bench.dispatcher.journeys.count == 0
            }
        }
        #expect(results == [[true, true, true], [true, true, true]])
    }

    @Test(arguments: [false, true])
    func `a pass that fails or is given up is forgotten with its tape`(isRecording: Bool) throws {
        let counts = try InProcess.run(ranks: 2) { group in
            let bench = Bench(group)
            var counts: [Int] = []
            for _ in 0..<4 {
                bench.bank.isBroken = true
                do {
                    _ = try bench.pass(isRecording: isRecording)
                    counts.append(-1)
                } catch is Broken { counts.append(bench.dispatcher.journeys.count) }
                bench.bank.isBroken = false
                // Nobody finishes this one.
                let tape = Tape(backend: bench.backend, isRecording: isRecording)
                let (x, _, decision) = try bench.tokens(on: tape, isPadded: false)
                _ = try bench.dispatcher.dispatch(x, decision, on: tape)
                counts.append(bench.dispatcher.journeys.count)
            }
            _ = try bench.pass(isRecording: isRecording)
            return counts + [bench.dispatcher.journeys.count]
        }
        #expect(counts == Array(repeating: Array(repeating: 1, count: 8) + [0], count: 2))
    }

    @Test func `passes on several tapes do not disturb each other`() throws {
        let results = try InProcess.run(ranks: 2) { group in
            let bench = Bench(group)
            let tapes = (0..<2).map { _ in Tape(backend: bench.backend) }
            // The same decision on both, as when one is replayed.
            let (x, weights, decision) = try bench.tokens(on: tapes[0], isPadded: false)
            let inputs = [x, tapes[1].leaf(try bench.backend.allocator.random(Shape(6, 3), seed: 2))]
            let rows = try zip(inputs, tapes).map { try bench.dispatcher.dispatch($0, decision, on: $1).finish() }
            return try [0, 1].map { index in
                let before = bench.dispatcher.journeys.count
                let y = try bench.dispatcher.combine(
                    rows[index].source, weights: weights, decision, base: nil, on: tapes[index]
                ).finish()
                return before == 2 - index && y.tensor.floats() == inputs[index].tensor.floats()
            }
        }
        #expect(results == [[true, true], [true, true]])
    }
}
