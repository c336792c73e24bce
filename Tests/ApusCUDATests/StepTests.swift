import ApusKernels
import ApusTensor
import ApusTestSupport
import Synchronization
import Testing

@testable import ApusCUDA

extension CUDATests {
    /// The end of a training step: norm, optimizer, routers' biases and what the host reads.
    @Suite struct `The end of a step` {
        private let backend: CUDABackend

        init() throws {
            FakeDriver.reset()
            FakeCompiler.reset()
            backend = try FakeDriver.backend()
        }

        private func run(_ count: Int, _ dtype: DType, hasMaster: Bool = false) throws -> AdamWRun {
            let moments = hasMaster ? .f32 : dtype
            let buffers = AdamWBuffers(
                weights: try backend.empty(Shape(count), dtype),
                master: hasMaster ? try backend.empty(Shape(count), .f32) : nil,
                first: try backend.empty(Shape(count), moments), second: try backend.empty(Shape(count), moments),
                gradient: try backend.empty(Shape(count), moments))
            let step = AdamWStep(
                learningRate: 0.1, beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weightDecay: 0, step: 1)
            return AdamWRun(buffers, step, rounding: RandomStream(seed: 1, purpose: .stochasticRounding))
        }

        @Test func `buffers of all types are one launch, with blocks for each`() throws {
            let scale = try backend.empty(Shape(1), .f32)
            let runs = [
                try run(5000, .bf16, hasMaster: true), try run(2048, .bf16), try run(1, .f32), try run(0, .f32),
            ]
            _ = FakeDriver.takeCalls()
            try backend.adamW(runs, gradientScale: scale)
            #expect(FakeDriver.takeCalls("launch") == ["launch adamw (5, 1, 1) of (256, 1), 0 bytes"])
            try backend.adamW(Array(repeating: runs[0], count: 27), gradientScale: scale)
            #expect(
                FakeDriver.takeCalls("launch") == [
                    "launch adamw (72, 1, 1) of (256, 1), 0 bytes", "launch adamw (9, 1, 1) of (256, 1), 0 bytes",
                ])
        }

        @Test func `the norm of all gradients is three launches`() throws {
            let (sum, scale) = (try backend.empty(Shape(1), .f32), try backend.empty(Shape(1), .f32))
            let gradients = try [100_000, 7, 65_536].map { try backend.empty(Shape($0), $0 == 7 ? .f32 : .bf16) }
            _ = FakeDriver.takeCalls()
            try backend.gradientSquares(gradients, into: sum)
            try backend.clipFactor(sumOfSquares: sum, loss: nil, previous: nil, limit: 1, into: scale)
            #expect(
                FakeDriver.takeCalls("launch") == [
                    "launch gradient_squares (4, 1, 1) of (256, 1), 0 bytes",
                    "launch finish_sum (1, 1, 1) of (256, 1), 0 bytes",
                    "launch clip_factor (1, 1, 1) of (1, 1), 0 bytes",
                ])
        }

        @Test func `many readings are one copy, which nobody waits for until it is read`() throws {
            FakeDriver.state.withLock { $0.holdsEvents = true }
            let readings = try (0..<70).map { try backend.empty(Shape(2, $0 % 5), $0 % 2 == 0 ? .f32 : .i32) }
            _ = FakeDriver.takeCalls()
            let host = try backend.download(readings)
            #expect(
                FakeDriver.takeCalls("launch", "copy_to_host") == [
                    "launch pack_words (64, 1, 1) of (256, 1), 0 bytes",
                    "launch pack_words (6, 1, 1) of (256, 1), 0 bytes", "copy_to_host",
                ])
            for (left, right) in zip(host, readings) {
                #expect(left.shape == right.shape && left.dtype == right.dtype && left.device == .cpu)
                #expect(left.ready === host[0].ready && left.ready?.isComplete == false)
            }
            #expect(zip(host, host.dropFirst()).allSatisfy { $1.byteOffset == $0.byteOffset + 4 * $0.count })
            #expect(backend.synchronizations == 0)
            try host[69].ready?.wait()
            try host[0].ready?.wait()
            #expect(backend.synchronizations == 1)
        }

        @Test func `a router's loads are summed on the device`() throws {
            let (bias, scale) = (try backend.empty(Shape(6), .f32), try backend.empty(Shape(1), .f32))
            let choices = try [3, 2].map { try backend.empty(Shape($0, 6), .f32) }
            _ = FakeDriver.takeCalls()
            try backend.moveSelectionBias(bias, choices: [choices[0]], rate: 0.1, gradientScale: scale)
            let last = "launch move_selection_bias (1, 1, 1) of (1024, 1), 0 bytes"
            #expect(FakeDriver.takeCalls("launch", "copy_to_host") == [last])
            try backend.moveSelectionBias(bias, choices: choices, rate: 0.1, gradientScale: scale)
            let calls = FakeDriver.takeCalls("launch", "copy_to_host")
            #expect(calls.count == 6 && calls.last == last && backend.synchronizations == 0)
        }
    }
}
