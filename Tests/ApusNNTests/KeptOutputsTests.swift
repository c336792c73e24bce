import ApusCollectives
import ApusKernels
import ApusNN
import ApusTensor
import Testing

/// Checkpointed blocks that take their collectives' outputs over from their first run.
struct KeptOutputsTests {
    /// Calls of rank 0 by kind, and every rank's gradient, of a block with an all-to-all, an all-reduce and an
    /// all-gather inside a block.
    private func run(
        _ keeping: KeptOutputs, outer: KeptOutputs? = nil
    ) throws -> (calls: [OperationSignature.Kind: Int], gradients: [[Float]]) {
        let ledgers = [CollectiveLedger(), CollectiveLedger()]
        let inputs = [exchangeValues(4, seed: 1), exchangeValues(4, seed: 2)]
        let results = try runExchange(inputs, Array(repeating: Shape(2, 2), count: 2)) { tape, x, world in
            let collective = CountingCollective(world, in: ledgers[world.rank])
            let block: (Tape, [Variable]) throws -> [Variable] = { tape, inputs in
                let there = try tape.startAllToAll(inputs[0], over: collective).finish()
                let sum = try tape.startAllReduce(tape.squared(there), downstream: .partial, over: collective).finish()
                let all = try tape.startAllGather(tape.squared(sum), downstream: .partial, over: collective)
                return [try tape.squared(all.finish())]
            }
            let y: Variable
            if let outer {
                y = try tape.checkpoint("outer", inputs: [x], keeping: outer) { tape, inputs in
                    try tape.checkpoint("inner", inputs: inputs, keeping: keeping, body: block)
                }[0]
            } else {
                y = try tape.checkpoint("block", inputs: [x], keeping: keeping, body: block)[0]
            }
            return try tape.addWeightedSquares(of: y, weights: exchangeValues(8, seed: 3))
        }
        let kinds: [OperationSignature.Kind] = [.allToAll, .allReduce, .allGather, .reduceScatter]
        let calls = kinds.map { kind in (kind, ledgers[0].total { $0.kind == kind }.calls) }
        return (Dictionary(uniqueKeysWithValues: calls), results.map(\.gradient))
    }

    @Test(arguments: [
        (KeptOutputs(), 3, 3, 2), (.all, 2, 2, 1), (.allToAll, 2, 3, 2), (.reductions, 3, 2, 2), (.allGather, 3, 3, 1),
    ])
    func `kept outputs are not asked for again`(
        _ keeping: KeptOutputs, allToAll: Int, allReduce: Int, allGather: Int
    ) throws {
        let plain = try run([])
        let kept = try run(keeping)
        #expect(kept.calls == [.allToAll: allToAll, .allReduce: allReduce, .allGather: allGather, .reduceScatter: 1])
        #expect(kept.gradients == plain.gradients)
    }

    @Test func `a block inside a block keeps what the outer one keeps`() throws {
        let plain = try run([])
        // The inner block runs three times, and its backward once.
        #expect(try run([], outer: []).calls == [.allToAll: 4, .allReduce: 4, .allGather: 3, .reduceScatter: 1])
        for inner in [[], .all, .allGather] as [KeptOutputs] {
            let nested = try run(inner, outer: .all)
            #expect(nested.calls == [.allToAll: 2, .allReduce: 2, .allGather: 1, .reduceScatter: 1])
            #expect(nested.gradients == plain.gradients)
        }
        let mixed = try run(.all, outer: .allToAll)
        #expect(mixed.calls == [.allToAll: 2, .allReduce: 3, .allGather: 2, .reduceScatter: 1])
        #expect(mixed.gradients == plain.gradients)
    }
}
