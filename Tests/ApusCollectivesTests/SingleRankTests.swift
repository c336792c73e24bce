import ApusTensor
import Testing

@testable import ApusCollectives

/// A world of one does every operation at once.
struct SingleRankTests {
    @Test
    func `every operation is a copy`() throws {
        let collective = SingleRank()
        let memory = CachingAllocator()
        let input = try memory.whole([1, 2, 3, 4], .f32, Shape(2, 2))
        let operations: [(Tensor) -> CollectiveOperation] = [
            { .allReduce(input, .sum, into: $0) }, { .reduceScatter(input, .max, into: $0) },
            { .allGather(input, into: $0) }, { .allToAll(input, into: $0, nil) },
            { .allToAll(input, into: $0, RowSplits(sent: [2], received: [2])) },
        ]
        for operation in operations {
            let output = try memory.untouched(input.shape, .f32)
            let event = try collective.start(operation(output), after: .cpu, layer: nil)
            #expect(event.isComplete)
            #expect(output.wholeNumbers == [1, 2, 3, 4])
        }
        try collective.broadcast(input, root: 0)
        try collective.barrier()
        #expect(collective.size == 1)
    }

    @Test
    func `a tensor that the host cannot read is refused`() throws {
        struct DeviceMemory: MemorySource {
            let device = Device.cuda(2)
            func allocate(_ size: Int) -> UInt? { 1 << 20 }
            func free(_ address: UInt, size: Int) {}
        }
        let memory = CachingAllocator(source: DeviceMemory())
        let tensor = try memory.empty(Shape(4), .f32, .activations)
        @Sendable func check(_ collective: any Collective) throws {
            let error = collectiveError { try collective.allReduce(tensor, into: tensor) }
            guard case .notHostMemory(_, let operation, .cuda(2))? = error else {
                Issue.record("\(String(describing: error))")
                return
            }
            #expect(try operation.kind == .allReduce && "\(#require(error))".contains("cuda:2"))
        }
        try check(SingleRank())
        _ = try InProcess.run(ranks: 2, timeout: .seconds(5)) { try check($0) }
    }

    @Test
    func `it splits into itself, and an abort ends it`() throws {
        let collective = SingleRank()
        #expect(try collective.split(name: "expert", color: 3)?.name == "expert.3")
        #expect(try collective.split(name: "expert", color: 3)?.name == "expert.3#2")
        #expect(try collective.split(name: "expert", color: nil) == nil)
        collective.abort(reason: "test")
        #expect(collectiveError { try collective.barrier() } == .aborted(communicator: "world", reason: "test"))
    }
}
