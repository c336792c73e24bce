import ApusKernels
import ApusNN
import ApusTensor
import Synchronization
import Testing

@testable import ApusCUDA

extension CUDATests {
    @Suite struct `A device's clock` {
        private let backend: CUDABackend

        init() throws {
            FakeDriver.reset()
            FakeCompiler.reset()
            backend = try FakeDriver.backend()
            FakeDriver.state.withLock { $0.holdsEvents = true }
        }

        @Test func `a mark is an event of the stream, which is waited for when its time is asked`() throws {
            let x = try backend.empty(Shape(10), .f32)
            _ = FakeDriver.takeCalls()
            let begin = try backend.timeMark()
            try backend.fill(x, with: 1)
            let end = try backend.timeMark()
            #expect(
                FakeDriver.takeCalls("event", "launch") == [
                    "event_record", "launch fill_f32 (1, 1, 1) of (256, 1), 0 bytes", "event_record",
                ])
            #expect(!begin.isComplete && !end.isComplete && backend.synchronizations == 0)
            #expect(try end.seconds(since: begin) == 0.002)
            #expect(begin.isComplete && end.isComplete && backend.synchronizations == 1)
            try begin.wait()
            #expect(try end.seconds(since: begin) == 0.002 && backend.synchronizations == 1)
        }

        @Test func `recorded work has no marks`() throws {
            let x = try backend.zeros(Shape(10), .f32)
            #expect(throws: RecordingError.self) {
                _ = try backend.record {
                    try backend.scale(x, by: 2, into: x)
                    _ = try backend.timeMark()
                }
            }
            #expect(try !backend.timeMark().isComplete)
        }

        @Test(arguments: [(Float(0.0009), false), (0.001, true)])
        func `ops for which the device had nothing to do are left out`(milliseconds: Float, isShown: Bool) throws {
            FakeDriver.state.withLock { $0.elapsed = milliseconds }
            let trace = Trace(on: backend)
            let tape = Tape(backend: backend, trace: trace)
            let x = tape.leaf(try backend.empty(Shape(10), .f32))
            try Optional(trace).span("forward", .phase) {
                let y = tape.record("view", inputs: [x], output: x.tensor) { _ in }
                try tape.addRoot(y, seed: 1)
            }
            try tape.backward()
            #expect(try trace.spans().map(\.name) == (isShown ? ["forward", "view", "view"] : ["forward"]))
        }

        @Test func `a device that has failed says so when the trace is read`() throws {
            let trace = Trace(on: backend)
            try Optional(trace).span("step 1", .step) {
                let x = try backend.empty(Shape(10), .f32)
                try backend.fill(x, with: 1)
            }
            FakeDriver.state.withLock { $0.failures["event_synchronize"] = 700 }
            #expect(throws: CUDAError.self) { try trace.spans() }
        }
    }
}
