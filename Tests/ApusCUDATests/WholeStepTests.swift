import ApusData
import ApusExperts
import ApusKernels
import ApusModels
import ApusNN
import ApusOptim
import ApusTensor
import ApusTestSupport
import Synchronization
import Testing

@testable import ApusCUDA
@testable import ApusTraining

extension CUDATests {
    /// Whole training steps on a device that ends nothing before it is waited for.
    @Suite struct `Training steps` {
        private let backend: CUDABackend
        private let step: TrainStep

        init() throws {
            FakeDriver.reset()
            FakeCompiler.reset()
            backend = try FakeDriver.backend()
            let experts = MoEConfiguration(
                experts: 4, choices: 2, width: 24,
                router: RouterConfiguration(scoring: .sigmoid, renormalizes: true, biasRate: 0.05),
                losses: RouterLosses(balance: 0.02, z: 0.01))
            let model = try Transformer(
                ModelConfiguration(
                    vocabulary: 40, width: 32, heads: 2, maximumPositions: 16,
                    feedForward: [.moe(experts), .dense(width: 40), .moe(experts)]),
                backend: backend, precision: .bf16, isTrained: true)
            try model.store.initialize(seed: 1, backend: backend)
            let optimizer = try AdamW(
                model.store, configuration: AdamW.Configuration(), seed: 9, backend: backend)
            step = TrainStep(
                model: model, optimizer: optimizer, backend: backend,
                configuration: TrainingConfiguration(steps: 60, batch: 4, microBatch: 2), seed: 9)
            FakeDriver.state.withLock { $0.holdsEvents = true }
        }

        private func enqueue(_ number: Int, _ trace: Trace? = nil) throws -> EnqueuedStep {
            try step.enqueue(step: number, sequenceLength: 16, learningRate: 0.01, trace: trace) { sequences in
                let ids = (0..<sequences.count * 16).map { Int32(($0 * 7 + number) % 40) }
                return TokenBatch(inputs: ids, targets: ids)
            }
        }

        @Test func `the host waits for the loss that is shown, and for nothing else`() throws {
            var queue = StepQueue<EnqueuedStep>()
            var waits: [Int] = []
            var seen: [Int] = []
            for number in 1...50 {
                let before = backend.synchronizations
                queue.append(try enqueue(number))
                #expect(backend.synchronizations == before, "enqueueing step \(number)")
                try queue.advance(isShown: number % 10 == 0)
                if backend.synchronizations > before { waits.append(number) }
                while let next = queue.next() {
                    _ = try next.step.result()
                    seen.append(next.step.step)
                }
            }
            #expect(waits == [10, 20, 30, 40, 50] && backend.synchronizations == 5)
            #expect(seen == Array(1...49))
        }

        @Test func `a steady step uploads tokens and targets, downloads once, and asks the driver for no memory`()
            throws
        {
            for number in 1...3 { _ = try enqueue(number).result() }
            _ = FakeDriver.takeCalls()
            for number in 4...6 {
                let enqueued = try enqueue(number)
                let calls = FakeDriver.takeCalls()
                // Two micro-batches.
                #expect(calls.count { $0 == "copy_to_device" } == 4)
                #expect(calls.count { $0 == "copy_to_host" } == 1)
                #expect(calls.count { $0 == "allocate" || $0 == "free" || $0 == "stream_synchronize" } == 0)
                #expect(calls.count { $0.hasPrefix("launch adamw ") } == 1)
                let last = calls.lastIndex { $0.hasPrefix("launch adamw ") } ?? 0
                #expect(calls[last...].contains("copy_to_host"), "readings are those of the whole step")
                _ = try enqueued.result()
            }
        }

        @Test func `a trace is of the device's times, and nobody waits until it is read`() throws {
            let trace = Trace(on: backend)
            for number in 1...3 { _ = try Optional(trace).span("step \(number)", .step) { try enqueue(number, trace) } }
            #expect(!trace.isComplete && backend.synchronizations == 0)
            let spans = try trace.spans()
            #expect(trace.isComplete && backend.synchronizations == 1)
            let steps = spans.filter { $0.category == .step }
            #expect(steps.map(\.name) == ["step 1", "step 2", "step 3"])
            // The device takes 2 ms from any mark to the next, whatever lies between.
            #expect(spans.allSatisfy { $0.duration > 0 && $0.duration % 2_000_000 == 0 })
            for (step, next) in zip(steps, steps.dropFirst()) {
                #expect(next.start == step.start + step.duration + 2_000_000)
            }
            let names = Set(spans.map(\.name))
            let expected: Set = ["forward", "backward", "experts", "attention", "router", "optimizer"]
            #expect(names.isSuperset(of: expected), "\(names)")
        }

        @Test func `a trace is written when the device is done with it, which nobody waits for`() throws {
            let scratch = try ScratchFolder()
            let file = try TraceFile(path: scratch.file("trace.json"), steps: 2)
            for number in 1...7 {
                let trace = try file.trace(step: number, last: 60, on: backend)
                #expect((trace != nil) == (3...4).contains(number))
                _ = try trace.span("step \(number)", .step) { try enqueue(number, trace) }
                if number == 6 { FakeDriver.finishEvents() }
                try file.finished(step: number)
                let text = try #require(textFile(file.path))
                #expect(text.contains("step 4") == (number >= 6), "after step \(number)")
            }
            #expect(backend.synchronizations == 0)
        }

        @Test func `a run that ends first waits for its trace`() throws {
            let scratch = try ScratchFolder()
            let file = try TraceFile(path: scratch.file("trace.json"), steps: 1)
            let trace = try file.trace(step: 1, last: 1, on: backend)
            _ = try trace.span("step 1", .step) { try enqueue(1, trace) }
            try file.finished(step: 1)
            #expect(backend.synchronizations == 0)
            try file.write()
            #expect(textFile(file.path)?.contains("step 1") == true)
            #expect(backend.synchronizations == 1)
        }
    }
}
