import ApusKernels
import ApusTensor
import Synchronization
import Testing

@testable import ApusCUDA

// Shape letters: R dense rows, b rows and columns of a block, Q the dense extent.

extension CUDATests {
    /// Which kernels multiply with a block-sparse matrix.
    @Suite struct `Block-sparse launches` {
        private let b = 128

        /// Names of the launches of the products of two experts of two blocks each, on a device of this capability.
        private func launches(
            capability: (Int32, Int32) = (9, 0), rows: [[Int]] = [[0, 1], [2, 3]], q: Int = 72,
            picked: Bool = false
        ) throws -> [String] {
            FakeDriver.reset()
            FakeDriver.state.withLock { state in
                state.attributes[75] = capability.0
                state.attributes[76] = capability.1
            }
            let backend = try FakeDriver.backend()
            let topology = try BlockTopology(rows: rows, blockColumns: 4, blockSize: b, on: backend)
            let r = rows.count * b
            let values = try backend.empty(Shape(topology.valueCount), .bf16)
            let dense = try backend.empty(Shape(r, q), .bf16)
            let index = try backend.tensor([Int32](repeating: 0, count: r), Shape(r))
            let a = picked ? Matrix(dense, rows: index) : dense.matrix
            let stack = BlockStack(try backend.empty(Shape(2, 2 * b, q), .bf16))
            let turned = BlockStack(try backend.empty(Shape(2, q, 2 * b), .f32), transposed: true)
            _ = FakeDriver.takeCalls()
            try backend.sdd(a, stack, topology: topology, into: values)
            try backend.dsd(values, stack, topology: topology, into: dense, adds: false)
            try backend.ddst(
                stack, values, topology: topology, into: try backend.empty(Shape(q, r), .bf16), adds: false)
            try backend.dstd(values, a, topology: topology, into: stack, adds: true)
            try backend.dds(
                Matrix(dense, transposed: true), values, topology: topology, into: turned, adds: true)
            return FakeDriver.takeCalls("launch").map { String($0.split(separator: " ")[1]) }
        }

        private let portable = ["sdd_nn_bf16", "dsd_n_bf16", "ddst_n_bf16", "dstd_n_bf16_bf16", "dstd_t_bf16_f32"]

        @Test func `take Hopper's tiles where block rows have as many blocks`() throws {
            let own = ["sdd_n_sm90a", "dsd_n_sm90a", "ddst_n_bf16", "dstd_n_sm90a_bf16", "dstd_t_sm90a_f32"]
            #expect(try launches() == own)
            #expect(try launches(rows: [[0, 3], [1, 2]]) == own)
            let gathered = try launches(picked: true)
            #expect(gathered.filter { own.contains($0) } == own && gathered.count == own.count + 2)
        }

        @Test func `take the portable ones elsewhere`() throws {
            #expect(try launches(capability: (8, 0)) == portable)
            #expect(try launches(capability: (10, 0)) == portable)
            #expect(try launches(rows: [[0, 1], [2]]) == portable)
            #expect(try launches(q: 19) == portable)
        }
    }
}
