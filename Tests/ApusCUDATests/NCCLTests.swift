import ApusCollectives
import ApusKernels
import ApusTensor
import CApusDrivers
import Synchronization
import Testing

@testable import ApusCUDA

extension CUDATests {
    /// What NCCL is asked for operations between GPUs.
    @Suite struct `Operations between GPUs` {
        private let backend: CUDABackend
        private let host: FakeHost
        private let gpus: NCCLCollective

        init() throws {
            FakeDriver.reset()
            FakeCompiler.reset()
            FakeNCCL.reset()
            backend = try FakeDriver.backend()
            host = FakeHost(members: [0, 1, 2])
            gpus = try CUDAWorld.collective(over: host, on: backend, library: FakeNCCL.library())
        }

        private func tensor(_ rows: Int, _ dtype: DType = .f32) throws -> Tensor {
            try backend.empty(Shape(rows, 4), dtype)
        }

        @Test func `the communicator is made of an id that the host's ranks share`() {
            #expect(FakeNCCL.takeCalls() == ["make_id", "initialize 0 of 3"])
            #expect(host.takeCalls() == ["broadcast of 129 u8 from root 0"])
            let configuration = FakeNCCL.state.withLock { $0.configurations[0] }
            #expect(configuration.size == 48 && configuration.magic == 0xcafe_beef && configuration.version == 21800)
            #expect(configuration.blocking == 1 && configuration.splitShare == .min && !configuration.namesNetwork)
            #expect(FakeNCCL.state.withLock { $0.ids } == [42])
            #expect(gpus.version == LibraryVersion(2, 28))
        }

        @Test func `each operation is one call, of its elements and types`() throws {
            let (one, three) = (try tensor(1), try tensor(3))
            let bf16 = try tensor(3, .bf16)
            let counts = try tensor(1, .i32)
            _ = FakeNCCL.takeCalls()
            try gpus.allReduce(three, into: three)
            try gpus.allReduce(counts, .max, into: counts)
            try gpus.reduceScatter(bf16, into: try tensor(1, .bf16))
            try gpus.allGather(one, into: three)
            try gpus.broadcast(try tensor(2, .u8), root: 2)
            #expect(
                FakeNCCL.takeCalls() == [
                    "all_reduce 12 of 7 by 0", "all_reduce 4 of 2 by 2", "reduce_scatter 4 of 9 by 0",
                    "all_gather 4 of 7", "broadcast 8 of 1 from 2",
                ])
        }

        @Test func `views are passed as they lie, so that what is in place stays so`() throws {
            let all = try tensor(3)
            _ = FakeNCCL.takeCalls()
            _ = try gpus.startAllGather(all[0..<1], into: all)
            _ = try gpus.startReduceScatter(all, into: all[1..<2])
            let begin = UInt(all.deviceAddress)
            #expect(FakeNCCL.state.withLock { $0.addresses } == [begin, begin, begin, begin + 16])
        }

        @Test func `an operation waits for the backend's work on the device, and the backend for it`() throws {
            let x = try tensor(3)
            FakeDriver.state.withLock { $0.holdsEvents = true }
            _ = FakeDriver.takeCalls()
            let sum = try gpus.startAllReduce(x, into: try tensor(3), after: backend.stream)
            // The end of what the backend was given, the wait for it, and begin and end of the exchange.
            #expect(
                FakeDriver.takeCalls("event", "stream_wait")
                    == ["event_record", "stream_wait_event", "event_record", "event_record"])
            #expect(sum.ready?.isComplete == false)
            try backend.scale(sum, by: 2, into: sum)
            let calls = FakeDriver.takeCalls("event", "stream_wait", "launch")
            #expect(calls.first == "stream_wait_event" && calls.last?.hasPrefix("launch") == true)
            #expect(backend.synchronizations == 0)
            FakeDriver.finishEvents()
            try sum.ready?.wait()
        }

        @Test func `equal parts are sends and receives that begin together, a rank's own among them`() throws {
            let (x, y) = (try tensor(3), try tensor(3))
            _ = FakeNCCL.takeCalls()
            try gpus.allToAll(x, into: y)
            #expect(
                FakeNCCL.takeCalls() == [
                    "group_start", "send 4 of 7 to 0", "receive 4 of 7 from 0", "send 4 of 7 to 1",
                    "receive 4 of 7 from 1", "send 4 of 7 to 2", "receive 4 of 7 from 2", "group_end",
                ])
        }

        @Test func `parts without rows are no messages, and the others lie one after the other`() throws {
            let (x, y) = (try tensor(5), try tensor(6))
            _ = FakeNCCL.takeCalls()
            let splits = RowSplits(sent: [1, 0, 2], received: [1, 3, 0])
            _ = try gpus.startAllToAll(x, into: y, splits: splits)
            let (from, to) = (UInt(x.deviceAddress), UInt(y.deviceAddress))
            #expect(FakeNCCL.state.withLock { $0.addresses } == [from, to, to + 16, from + 16])
            #expect(
                FakeNCCL.takeCalls() == [
                    "group_start", "send 4 of 7 to 0", "receive 4 of 7 from 0", "receive 12 of 7 from 1",
                    "send 8 of 7 to 2", "group_end",
                ])
            try gpus.allToAll(x, into: y, splits: RowSplits(sent: [0, 0, 0], received: [0, 0, 0]))
            #expect(FakeNCCL.takeCalls() == [])
        }

        @Test func `messages begin together when one is waited for`() throws {
            let (x, y) = (try tensor(1), try tensor(1))
            _ = FakeNCCL.takeCalls()
            let sent = try gpus.startSend(x, to: 1)
            let received = try gpus.startReceive(y, from: 2)
            #expect(FakeNCCL.takeCalls() == [] && !sent.isComplete)
            try received.ready?.wait()
            #expect(
                FakeNCCL.takeCalls() == ["group_start", "send 4 of 7 to 1", "receive 4 of 7 from 2", "group_end"])
            #expect(sent.isComplete)
        }

        @Test func `messages begin before another operation, and by rounds`() throws {
            let (x, y) = (try tensor(1), try tensor(1))
            _ = FakeNCCL.takeCalls()
            for _ in 0..<2 {
                _ = try gpus.startSend(x, to: 1)
                _ = try gpus.startReceive(y, from: 1)
            }
            _ = try gpus.startSend(x, to: 2)
            let round = ["group_start", "send 4 of 7 to 1", "receive 4 of 7 from 1", "group_end"]
            #expect(FakeNCCL.takeCalls() == round + round)
            try gpus.allReduce(x, into: x)
            #expect(
                FakeNCCL.takeCalls() == [
                    "group_start", "send 4 of 7 to 2", "group_end", "all_reduce 4 of 7 by 0",
                ])
            _ = try gpus.startReceive(y, from: 2)
            try gpus.barrier()
            #expect(FakeNCCL.takeCalls() == ["group_start", "receive 4 of 7 from 2", "group_end"])
        }

        @Test func `what is not on the device is the host's`() throws {
            _ = (host.takeCalls(), FakeNCCL.takeCalls())
            try gpus.barrier()
            let numbers = try CachingAllocator().tensor([1, 2] as [Int32], Shape(2))
            try gpus.allReduce(numbers, into: numbers)
            #expect(host.takeCalls() == ["barrier", "all-reduce (sum) of 2 i32"] && FakeNCCL.takeCalls() == [])
        }

        @Test func `parts of the same ranks share NCCL's communicator, others have their own`() throws {
            _ = (host.takeCalls(), FakeNCCL.takeCalls())
            let same = try #require(try gpus.split(name: "data", color: 0))
            #expect(FakeNCCL.takeCalls() == [] && same.name == "data.0" && same.size == 3)
            let pair = try #require(try gpus.split(name: "expert", color: 1))
            #expect(FakeNCCL.takeCalls() == ["make_id", "initialize 0 of 2"])
            _ = try gpus.split(name: "expert", color: 1)
            let single = try #require(try gpus.split(name: "tensor", color: 2))
            #expect(try gpus.split(name: "none", color: nil) == nil)
            #expect(FakeNCCL.takeCalls() == [] && pair.members == [1, 2] && single.size == 1)
            let (x, y) = (try backend.tensor([1, 2] as [Float], Shape(2)), try backend.zeros(Shape(2), .f32))
            try single.allReduce(x, into: y)
            #expect(try backend.floats(y) == [1, 2] && FakeNCCL.takeCalls() == [])
        }

        @Test func `memory under way is neither handed out nor overwritten`() throws {
            var x = try tensor(3)
            FakeDriver.state.withLock { $0.holdsEvents = true }
            let first = x.storage.pointer
            _ = try gpus.startAllReduce(x, into: x)
            let isFree = x.isSoleOwnerOfStorage()
            #expect(!isFree)
            x = try tensor(3)
            #expect(try tensor(3).storage.pointer != first)
            FakeDriver.finishEvents()
            let blocks = try (0..<2).map { _ in try tensor(3) }
            #expect(blocks.contains { $0.storage.pointer == first })
            let isOwn = x.isSoleOwnerOfStorage()
            #expect(isOwn)
        }

        @Test func `memory of an exchange that the backend's stream waits for is handed out at once`() throws {
            var x = try tensor(3)
            FakeDriver.state.withLock { $0.holdsEvents = true }
            let first = x.storage.pointer
            let sum = try gpus.startAllReduce(x, into: try tensor(3))
            let isFreeBefore = x.isSoleOwnerOfStorage()
            try backend.scale(sum, by: 2, into: try tensor(3))
            let isFreeAfter = x.isSoleOwnerOfStorage()
            #expect(!isFreeBefore && isFreeAfter && sum.ready?.isComplete == false)
            x = sum
            let blocks = try (0..<2).map { _ in try tensor(3) }
            #expect(blocks.contains { $0.storage.pointer == first })
            FakeDriver.finishEvents()
        }

        @Test func `exchanges have the device's time when they are over, for which no step waits`() throws {
            let ledger = CollectiveLedger()
            let counted = CountingCollective(gpus, in: ledger)
            let x = try tensor(3)
            FakeDriver.state.withLock { $0.holdsEvents = true }
            let sum = try counted.startAllReduce(x, into: x)
            try backend.scale(sum, by: 2, into: sum)
            let step = ledger.take()
            // The stream has come to the exchange, and is not past it.
            FakeDriver.finishEvents(besides: 1)
            let early = step.cost()
            #expect(early.count.calls == 1 && early.ended == 0 && early.seconds == 0 && early.exposedSeconds == nil)
            FakeDriver.finishEvents()
            let cost = step.cost()
            #expect(cost.ended == 1 && abs(cost.seconds - 0.002) < 1e-8 && cost.exposedSeconds == nil)
            #expect(backend.synchronizations == 0)
        }

        @Test func `recorded work has no exchanges`() throws {
            let x = try tensor(3)
            #expect(throws: RecordingError.self) {
                _ = try backend.record { [gpus] in try gpus.allReduce(x, into: x) }
            }
        }

        @Test func `communicators are closed when every rank has come`() throws {
            _ = (host.takeCalls(), FakeNCCL.takeCalls())
            try gpus.world.close(with: host)
            #expect(FakeNCCL.takeCalls() == ["finalize", "destroy"] && host.takeCalls() == ["barrier"])
        }
    }
}
