import ApusTensor
import Testing

@testable import ApusCollectives

/// Transfers that take time, while the ranks go on.
@Suite(.serialized)
struct DelayTests {
    @Test
    func `a start returns at once, and the event happens after the delay`() throws {
        let delay = TransferDelay(perOperation: .milliseconds(200))
        let times = try InProcess.run(ranks: 3, delay: delay) { world in
            let tensor = try CachingAllocator().whole([world.rank], .f32)
            let begin = ContinuousClock.now
            let sum = try world.startAllReduce(tensor, into: tensor)
            let started = begin.duration(to: .now)
            #expect(sum.ready?.isComplete == false)
            try sum.ready?.wait()
            #expect(sum.wholeNumbers == [3])
            return [started, begin.duration(to: .now)]
        }
        #expect(times.contains { $0[0] < .milliseconds(100) })
        for time in times { #expect(time[1] >= .milliseconds(190)) }
    }

    @Test
    func `bytes over bandwidth add to the delay`() {
        let delay = TransferDelay(perOperation: .milliseconds(2), bytesPerSecond: 1e6)
        #expect(delay.duration(byteCount: 0) == .milliseconds(2))
        #expect(delay.duration(byteCount: 500_000) == .milliseconds(502))
        #expect(TransferDelay.none.duration(byteCount: 1 << 30) == .zero)
    }

    @Test
    func `transfers of one communicator follow each other, those of two run side by side`() throws {
        let delay = TransferDelay(perOperation: .milliseconds(200))
        let times = try InProcess.run(ranks: 2, delay: delay) { world in
            let part = try #require(try world.split(name: "part", color: 0))
            let memory = CachingAllocator()
            func time(_ first: any Collective, _ second: any Collective) throws -> Duration {
                let tensors = try [memory.whole([1], .f32), memory.whole([1], .f32)]
                let begin = ContinuousClock.now
                let pending = try zip([first, second], tensors).map { try $0.startAllReduce($1, into: $1) }
                for tensor in pending { try tensor.ready?.wait() }
                return begin.duration(to: .now)
            }
            return try [time(world, world), time(world, part)]
        }
        #expect(times.allSatisfy { $0[0] >= .milliseconds(395) })
        #expect(times.contains { $0[1] < .milliseconds(390) })
    }

    @Test
    func `whoever waits is the only owner of its tensor afterwards`() throws {
        for delay in [TransferDelay.none, TransferDelay(perOperation: .milliseconds(1))] {
            let soles = try InProcess.run(ranks: 2, delay: delay) { world in
                let memory = CachingAllocator()
                return try (0..<50).map { _ in
                    var sum = try world.startAllReduce(memory.whole([1], .f32), into: memory.untouched(Shape(1), .f32))
                    try sum.ready?.wait()
                    return sum.isSoleOwnerOfStorage()
                }
            }
            #expect(soles.allSatisfy { $0.allSatisfy(\.self) })
        }
    }
}
