import ApusKernels
import ApusTensor
import Synchronization
import Testing

@testable import ApusCUDA

// Shape letters: R routed rows, E experts, N and K the extents of each expert's weight.

extension CUDATests {
    @Suite struct `Grouped products` {
        /// Launches of a product and of a weight's gradient on a device of this capability and shared memory.
        private func launches(capability: (Int32, Int32), sharedBytes: Int32) throws -> [String] {
            FakeDriver.reset()
            FakeDriver.state.withLock { state in
                state.attributes[75] = capability.0
                state.attributes[76] = capability.1
                state.attributes[97] = sharedBytes
            }
            let backend = try FakeDriver.backend()
            let (r, e, n, k) = (300, 4, 384, 64)
            let (x, dy) = (try backend.empty(Shape(r, k), .bf16), try backend.empty(Shape(r, n), .bf16))
            let weights = try backend.empty(Shape(e, n, k), .bf16)
            let offsets = try backend.tensor([Int32](repeating: 0, count: e + 1), Shape(e + 1))
            _ = FakeDriver.takeCalls()
            try backend.groupedMatMul(x, rows: nil, weights: weights, transposed: true, offsets: offsets, into: dy)
            try backend.groupedWeightGradient(dy, x, rows: nil, offsets: offsets, into: weights, adds: true)
            return FakeDriver.takeCalls("launch")
        }

        @Test func `take the tiles that a block's shared memory holds`() throws {
            #expect(
                try launches(capability: (9, 0), sharedBytes: 200_000) == [
                    "launch grouped_transposed_bf16 (14, 1, 1) of (256, 1), 196608 bytes",
                    "launch grouped_gradient_bf16_bf16 (3, 4, 1) of (256, 1), 196608 bytes",
                ])
            // An A100, and a GeForce.
            for (capability, shared) in [((8, 0), 166_912), ((8, 9), 101_376)] as [((Int32, Int32), Int32)] {
                #expect(
                    try launches(capability: capability, sharedBytes: shared) == [
                        "launch grouped_transposed_bf16_128 (21, 1, 1) of (128, 1), 98304 bytes",
                        "launch grouped_gradient_bf16_bf16_128 (3, 4, 1) of (128, 1), 98304 bytes",
                    ])
            }
        }
    }
}
