import ApusCollectives
import ApusKernels
import ApusNN
import ApusTensor
import ApusTestSupport
import Testing

@testable import ApusExperts

// Shape letters: T tokens, D model width, K choices per token.

/// A combination adds into its base's storage, but not where a checkpointed block needs the base again.
@Suite struct KeptBaseTests {
    @Test func `a kept base is not added to twice`() throws {
        func gradient(_ keeping: KeptOutputs) throws -> [Float] {
            let backend = CPUBackend(threadCount: 1)
            let ids = try backend.allocator.integers([0, 1, 1, 0], Shape(4, 1))
            let decision = RoutingDecision(
                ids: ids, kept: ids, experts: 2, capacities: [], isPadded: false,
                permutation: try backend.sortByExpert(ids, experts: 2))
            let weights = try backend.empty(ids.shape, .f32)
            backend.fill(weights, with: 0.5)
            let group = SingleRank()
            let tape = Tape(backend: backend)
            let x = tape.leaf(try backend.allocator.random(Shape(4, 3), seed: 1))
            let y = try tape.checkpoint("block", inputs: [x], keeping: keeping) { tape, inputs in
                let dispatcher = LocalDispatcher()
                let rows = try dispatcher.dispatch(inputs[0], decision, on: tape).finish()
                // The sum of a row-parallel shared expert, as far as the tape can tell.
                let base = try tape.startAllReduce(inputs[0], downstream: .replicated, over: group).finish()
                let sum = try dispatcher.combine(
                    rows.source, weights: .constant(weights), decision, base: base, on: tape
                ).finish()
                let square = try tape.backend.empty(sum.shape, .f32)
                try tape.backend.multiply(sum.tensor, sum.tensor, into: square)
                return [
                    tape.record("square", inputs: [sum], output: square) { flow in
                        guard let dy = flow.output() else { return }
                        let dx = try flow.backend.empty(dy.shape, .f32)
                        try flow.backend.multiply(dy, sum.tensor, into: dx)
                        try flow.accumulate(dx, into: sum)
                    }
                ]
            }
            try tape.addRoot(y[0], seed: 1)
            try tape.backward()
            return try #require(tape.gradient(of: x)).floats()
        }
        #expect(try gradient(.all) == gradient([]))
    }
}
