import ApusCollectives
import ApusKernels
import ApusNN
import ApusTensor
import Testing

/// What exchanges do on a tape besides their gradients.
struct ExchangeTests {
    @Test(arguments: [false, true])
    func `a rank without a loss takes part in backward all the same`(checkpointed: Bool) throws {
        let inputs = [exchangeValues(4, seed: 1), exchangeValues(4, seed: 2), exchangeValues(4, seed: 3)]
        let results = try runExchange(inputs, Array(repeating: Shape(2, 2), count: 3)) { tape, x, collective in
            let block: (Tape, [Variable]) throws -> [Variable] = { tape, inputs in
                [try tape.startAllReduce(inputs[0], downstream: .partial, over: collective).finish()]
            }
            let y =
                try checkpointed
                ? tape.checkpoint("block", inputs: [x], body: block)[0] : block(tape, [x])[0]
            guard collective.rank != 1 else { return 0 }
            return try tape.addWeightedSquares(of: y, weights: [1, 1, 1, 1])
        }
        let sum = (0..<4).map { index in inputs.reduce(0) { $0 + $1[index] } }
        for result in results {
            for (value, total) in zip(result.gradient, sum) { #expect(abs(value - 4 * total) < 1e-5) }
        }
    }

    @Test
    func `a constant and an idle tape exchange values and record nothing`() throws {
        let values = try InProcess.run(ranks: 2) { collective in
            let backend = CPUBackend(threadCount: 1)
            let tensor = try backend.allocator.tensor([Float(collective.rank), 5], Shape(2, 1))
            let idle = Tape(backend: backend, isRecording: false)
            let tape = Tape(backend: backend)
            let results = [
                try tape.startAllToAll(.constant(tensor), over: collective).finish(),
                try idle.startAllToAll(idle.leaf(tensor), over: collective).finish(),
            ]
            try tape.backward()
            #expect(results.allSatisfy { !$0.needsGradient && $0.tensor.ready == nil })
            return results.flatMap { $0.tensor.floats() }
        }
        #expect(values == [[0, 1, 0, 1], [5, 5, 5, 5]])
    }

    @Test
    func `finish throws what the collective ended with`() throws {
        let delay = TransferDelay(perOperation: .seconds(30))
        #expect(throws: CollectiveError.aborted(communicator: "world", reason: "test")) {
            try InProcess.run(ranks: 2, delay: delay) { collective in
                let tape = Tape(backend: CPUBackend(threadCount: 1))
                let x = tape.leaf(try tape.backend.allocator.tensor([Float(1), 2], Shape(2, 1)))
                let exchange = try tape.startAllToAll(x, over: collective)
                collective.abort(reason: "test")
                _ = try exchange.finish()
            }
        }
    }

    @Test
    func `an exchange keeps neither its input nor its gradient`() throws {
        let bytes = try InProcess.run(ranks: 2) { collective in
            let backend = CPUBackend(threadCount: 1)
            let tape = Tape(backend: backend)
            var x: Variable? = tape.leaf(try backend.zeros(Shape(1 << 16, 1), .f32))
            var y: Variable? = try x.map { try tape.startAllToAll($0, over: collective).finish() }
            x = nil
            y = nil
            let live = backend.allocator.statistics[.activations]
            withExtendedLifetime((tape, x, y)) {}
            return live
        }
        #expect(bytes == [0, 0])
    }
}
