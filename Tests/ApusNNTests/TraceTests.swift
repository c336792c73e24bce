import ApusKernels
import ApusNN
import ApusTensor
import Synchronization
import Testing

@Suite struct `A trace` {
    /// A device of which a test says when it comes past a mark.
    private final class SlowDevice: ClockOp {
        struct Lost: Error {}

        /// Nanoseconds of work given so far.
        var given = 0
        var isLost = false
        let waits = Mutex(0)
        let done = Mutex(0)

        func timeMark() throws -> any TimeMark {
            if isLost { throw Lost() }
            return Mark(device: Reference(value: self), time: given)
        }

        // Sendable: a test has one thread.
        struct Reference: @unchecked Sendable { let value: SlowDevice }

        struct Mark: TimeMark {
            let device: Reference
            let time: Int

            var isComplete: Bool { device.value.done.withLock { $0 >= time } }

            func wait() {
                guard !isComplete else { return }
                device.value.waits.withLock { $0 += 1 }
                device.value.done.withLock { $0 = time }
            }

            func seconds(since begin: any TimeMark) throws -> Double {
                wait()
                return Double(time - (try #require(begin as? Mark)).time) * 1e-9
            }
        }
    }

    private let device = SlowDevice()
    private let backend = CPUBackend(threadCount: 1)

    /// A step of two ops, the first a view of `small` nanoseconds, and their adjoints.
    private func record(_ trace: Trace, small: Int) throws {
        let tape = Tape(backend: backend, trace: trace)
        try Optional(trace).span("step 1", .step) {
            device.given += 5000
            let y = try tape.part("layer 0") {
                let x = tape.leaf(try backend.tensor([Float]([1, 2]), Shape(2)))
                device.given += small
                let view = tape.record("view", inputs: [x], output: x.tensor) { _ in device.given += small }
                device.given += 7000
                return tape.record("product", inputs: [view], output: x.tensor) { flow in
                    device.given += 9000
                    try flow.accumulate(try #require(flow.output()), into: view)
                }
            }
            try tape.addRoot(y, seed: 1)
            try tape.backward()
        }
    }

    private func text(_ spans: [Trace.Span]) -> [String] {
        spans.map { "\($0.category.rawValue) \($0.name): \($0.start) + \($0.duration)" }
    }

    @Test func `tells the device's times, and nothing of what takes no time`() throws {
        let trace = Trace(on: device)
        device.given = 1_000_000
        try record(trace, small: 999)
        let spans = try trace.spans()
        #expect(
            text(spans) == [
                "step step 1: 0 + 22998", "part layer 0: 5000 + 7999", "op product: 5999 + 7000",
                "part layer 0: 12999 + 9999", "adjoint product: 12999 + 9000",
            ])
    }

    @Test func `shows what takes a microsecond`() throws {
        let trace = Trace(on: device)
        try record(trace, small: 1000)
        #expect(
            text(try trace.spans()) == [
                "step step 1: 0 + 23000", "part layer 0: 5000 + 8000", "op view: 5000 + 1000",
                "op product: 6000 + 7000", "part layer 0: 13000 + 10000", "adjoint product: 13000 + 9000",
                "adjoint view: 22000 + 1000",
            ])
    }

    @Test func `waits for the device when it is read, and once`() throws {
        let trace = Trace(on: device)
        #expect(trace.isComplete)
        try record(trace, small: 0)
        #expect(!trace.isComplete && device.waits.withLock { $0 } == 0)
        let first = try trace.spans()
        #expect(trace.isComplete && device.waits.withLock { $0 } == 1)
        #expect(text(try trace.spans()) == text(first) && device.waits.withLock { $0 } == 1)
        try record(trace, small: 0)
        #expect(!trace.isComplete)
        let both = try trace.spans()
        #expect(both.count == 2 * first.count && device.waits.withLock { $0 } == 2)
        #expect(both[first.count].start == first[0].duration)
    }

    @Test func `a span that is open is not told of`() throws {
        let trace = Trace(on: device)
        trace.begin("step 1", .step)
        trace.begin("data", .phase)
        device.given += 3000
        trace.end()
        #expect(text(try trace.spans()) == ["phase data: 0 + 3000"])
        trace.end()
        #expect(text(try trace.spans()) == ["step step 1: 0 + 3000", "phase data: 0 + 3000"])
    }

    @Test func `a device that makes no mark is told of when the spans are asked for`() throws {
        let trace = Trace(on: device)
        device.isLost = true
        try record(trace, small: 0)
        device.isLost = false
        try record(trace, small: 0)
        #expect(throws: SlowDevice.Lost.self) { try trace.spans() }
    }

    @Test func `on the host every mark is over, and the clock goes on`() throws {
        let begin = backend.timeMark()
        var end = backend.timeMark()
        while try end.seconds(since: begin) == 0 { end = backend.timeMark() }
        #expect(begin.isComplete && end.isComplete)
        #expect(try end.seconds(since: begin) > 0 && begin.seconds(since: begin) == 0)
        let trace = Trace(on: backend)
        try record(trace, small: 0)
        let steps = try trace.spans().filter { $0.category == .step }
        #expect(trace.isComplete && steps.count == 1 && steps[0].duration > 0)
    }
}
