import ApusTensor
import Glibc
import Synchronization
import Testing

@testable import ApusCollectives

/// Times in a ledger: from start to end, and what of it held somebody up.
@Suite(.serialized) struct LedgerTimeTests {
    private static let delay = TransferDelay(perOperation: .milliseconds(60))

    /// The cost of the all-reduces of rank 0 after `body`, which is given the output under way.
    private func cost(
        delay: TransferDelay = delay, _ body: @escaping @Sendable (Tensor, any Collective) throws -> Void
    ) throws -> CollectiveLedger.Cost {
        try InProcess.run(ranks: 2, delay: delay) { world in
            let ledger = CollectiveLedger()
            let counted = CountingCollective(world, in: ledger)
            let tensor = try CachingAllocator().tensor([Float](repeating: 1, count: 4), Shape(4))
            try body(try counted.startAllReduce(tensor, into: tensor, layer: 1), counted)
            // The other rank's last look is not this one's.
            return ledger.cost { $0.kind == .allReduce }
        }[0]
    }

    @Test func `a wait from the start is all exposed`() throws {
        let cost = try cost { tensor, _ in try tensor.ready?.wait() }
        #expect(cost.count == CollectiveLedger.Count(calls: 1, bytes: 16) && cost.ended == 1)
        #expect(cost.seconds >= 0.06 && cost.seconds < 2)
        let exposed = try #require(cost.exposedSeconds)
        #expect(exposed > 0.9 * cost.seconds && exposed <= cost.seconds)
    }

    @Test func `the end is when it ends, not when somebody looks, and what is hidden is not exposed`() throws {
        let cost = try cost { tensor, _ in
            while tensor.ready?.isComplete == false { usleep(500) }
            pause(milliseconds: 300)
            try tensor.ready?.wait()
        }
        #expect(cost.seconds >= 0.06 && cost.seconds < 0.3)
        #expect(try #require(cost.exposedSeconds) < 0.02)
    }

    @Test func `a wait in the middle exposes the rest, two waits no more than one`() throws {
        let cost = try cost { tensor, _ in
            pause(milliseconds: 30)
            let other = RankThread { try? tensor.ready?.wait() }
            try tensor.ready?.wait()
            other.join()
        }
        let exposed = try #require(cost.exposedSeconds)
        #expect(exposed > 0.005 && exposed < cost.seconds - 0.025, "\(cost)")
    }

    @Test func `what reads an output under way waits for it, and that is the first operation's time`() throws {
        let ledgers = try InProcess.run(ranks: 2, delay: LedgerTimeTests.delay) { world in
            let ledger = CollectiveLedger()
            let counted = CountingCollective(world, in: ledger)
            let memory = CachingAllocator()
            let tensor = try memory.tensor([Float](repeating: 1, count: 4), Shape(4))
            let gathered = try memory.empty(Shape(8), .f32, .data)
            let sum = try counted.startAllReduce(tensor, into: tensor)
            let all = try counted.startAllGather(sum, into: gathered)
            // Read without a look at the event.
            #expect(all.floats() == [Float](repeating: 2, count: 8))
            return ledger
        }
        for ledger in ledgers {
            for kind in [OperationSignature.Kind.allReduce, .allGather] {
                let cost = ledger.cost { $0.kind == kind }
                #expect(cost.seconds >= 0.055 && cost.seconds < 0.115, "\(kind): \(cost)")
                #expect(try #require(cost.exposedSeconds) > 0.9 * cost.seconds, "\(kind): \(cost)")
            }
        }
    }

    @Test func `a copy that start itself makes holds the caller up`() throws {
        let ledger = CollectiveLedger()
        let counted = CountingCollective(SingleRank(), in: ledger)
        let memory = CachingAllocator()
        let input = try memory.tensor([Float](repeating: 1, count: 1 << 22), Shape(1 << 22))
        try counted.allGather(input, into: try memory.empty(Shape(1 << 22), .f32, .data))
        let cost = ledger.cost()
        #expect(cost.ended == 1 && cost.seconds > 1e-4)
        #expect(try #require(cost.exposedSeconds) > 0.9 * cost.seconds)
        let twice = cost + cost
        #expect(twice.ended == 2 && abs(twice.seconds - 2 * cost.seconds) < 1e-9 && twice.count.calls == 2)
    }

    @Test func `what is under way has no time yet, and none after the ledger was cleared`() throws {
        _ = try InProcess.run(ranks: 2, delay: LedgerTimeTests.delay) { world in
            let ledger = CollectiveLedger()
            let counted = CountingCollective(world, in: ledger)
            let event = try counted.startBarrier()
            let early = ledger.cost()
            #expect(early.count.calls == 1 && early.ended == 0 && early.seconds == 0)
            ledger.clear()
            try event.wait()
            #expect(ledger.costs.isEmpty)
        }
    }

    @Test func `a device's work is timed by whoever waits for it`() throws {
        struct Work: DeviceWork {
            let isComplete = false
            func wait() { usleep(20000) }
        }
        let ledger = CollectiveLedger()
        let event = try CountingCollective(Device(Work()), in: ledger).startBarrier()
        #expect(ledger.cost().count.calls == 1 && ledger.cost().ended == 0)
        try event.wait()
        try event.wait()
        let cost = ledger.cost()
        #expect(cost.ended == 1 && cost.seconds >= 0.02 && cost.seconds < 0.2)
        #expect(try #require(cost.exposedSeconds) > 0.019)
    }

    /// A communicator whose operations are all one work.
    private final class Device: Collective {
        let (name, rank, members, timeout) = ("gpu", 0, [0], Duration.seconds(1))
        private let work: any DeviceWork

        init(_ work: any DeviceWork) { self.work = work }

        func start(_ operation: CollectiveOperation, after stream: Stream, layer: Int?) -> Event { Event(of: work) }
        func split(name: String, color: Int?, key: Int, timeout: Duration?) -> (any Collective)? { nil }
        func abort(reason: String) {}
    }

    @Test func `a device that takes the time tells it when it is over, and of what was exposed nobody knows`() throws {
        final class Work: TimedWork {
            let time = Mutex<Double?>(nil)
            var isComplete: Bool { seconds != nil }
            var seconds: Double? { time.withLock { $0 } }
            func wait() {}
        }
        let work = Work()
        let ledger = CollectiveLedger()
        let counted = CountingCollective(Device(work), in: ledger)
        _ = try counted.startBarrier()
        try counted.barrier()
        let step = ledger.take()
        _ = try counted.startBarrier()
        #expect(step.cost().count.calls == 2 && step.cost().ended == 0 && step.cost().exposedSeconds == nil)
        work.time.withLock { $0 = 0.25 }
        for _ in 0..<2 {
            let cost = step.cost()
            #expect(cost.ended == 2 && abs(cost.seconds - 0.5) < 1e-6 && cost.exposedSeconds == nil)
        }
        #expect(ledger.cost().ended == 1, "what came later is not the step's")
        let host = CollectiveLedger()
        try CountingCollective(SingleRank(), in: host).barrier()
        #expect(host.cost().exposedSeconds != nil && (host.cost() + step.cost()).exposedSeconds == nil)
    }

    @Test func `spans are kept while they are recorded, up to the limit`() throws {
        let ledgers = try InProcess.run(ranks: 2) { world in
            let ledger = CollectiveLedger()
            let counted = CountingCollective(world, in: ledger)
            let part = try #require(try counted.split(name: "expert2", color: 0))
            let tensor = try CachingAllocator().tensor([Float](repeating: 1, count: 300), Shape(300))
            try part.allReduce(tensor, into: tensor)
            #expect(ledger.stopRecording().spans.isEmpty, "off until it is asked for")
            let begin = HostClock.nanoseconds
            ledger.startRecording(limit: 2)
            try part.allReduce(tensor, into: tensor, layer: 3)
            try counted.barrier()
            try counted.barrier()
            let recorded = ledger.stopRecording()
            #expect(recorded.leftOut == 1)
            #expect(recorded.spans.map(\.name) == ["all-reduce expert2 layer 3, 1.17 KiB", "barrier world"])
            for (span, next) in zip(recorded.spans, recorded.spans.dropFirst()) { #expect(span.end <= next.start) }
            #expect(
                recorded.spans.allSatisfy { begin <= $0.start && $0.start <= $0.end && $0.held <= $0.end - $0.start })
            try counted.barrier()
            #expect(ledger.stopRecording().spans.isEmpty)
            return ledger
        }
        #expect(ledgers[0].cost().count.calls == 5)
    }

    @Test func `an event tells each observer once, of the time of its end`() throws {
        let event = Event()
        let ledger = CollectiveLedger()
        let call = ledger.note(.barrier, on: "world", layer: nil)
        for _ in 0..<2 { event.observe { ledger.note(call, from: 0, to: $0.time, held: $0.waitedSince ?? 0) } }
        let before = HostClock.nanoseconds
        event.signal()
        let after = HostClock.nanoseconds
        pause(milliseconds: 20)
        event.observe { #expect((before...after).contains($0.time) && $0.waitedSince == nil) }
        #expect(ledger.cost().ended == 2 && ledger.cost().exposedSeconds == 0)
    }
}
