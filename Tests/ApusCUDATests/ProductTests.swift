import ApusKernels
import ApusTensor
import Synchronization
import Testing

@testable import ApusCUDA

// Shape letters: M rows, N columns, K contracted.

extension CUDATests {
    @Suite struct `Products given to cuBLASLt` {
        init() {
            FakeDriver.reset()
            FakeProducts.reset()
        }

        private func products() -> [String] { FakeProducts.state.withLock(\.products) }

        @Test func `are the transposes of those by columns`() throws {
            let backend = try FakeDriver.backend()
            let (m, n, k) = (3, 5, 7)
            func tensor(_ rows: Int, _ columns: Int) throws -> Tensor { try backend.empty(Shape(rows, columns), .f32) }
            let c = try tensor(m, n)
            try backend.matMul(tensor(m, k).matrix, tensor(k, n).matrix, into: c)
            try backend.matMul(tensor(m, k).matrix, tensor(n, k).transpose, into: c, adds: true)
            try backend.matMul(tensor(k, m).transpose, tensor(k, n).matrix, into: c)
            #expect(
                products() == [
                    "5x7/5t0 7x3/7t0 -> 5x3/5t0, beta 0.0", "7x5/7t0^T 7x3/7t0 -> 5x3/5t0, beta 1.0",
                    "5x7/5t0 3x7/3t0^T -> 5x3/5t0, beta 0.0",
                ])
        }

        @Test func `read columns of a wider matrix in place`() throws {
            let backend = try FakeDriver.backend()
            let x = try backend.empty(Shape(4, 30), .bf16).columns(10..<18)
            let c = try backend.empty(Shape(4, 4), .f32)
            try backend.matMul(x.matrix, x.transpose, into: c)
            #expect(products() == ["8x4/30t14^T 8x4/30t14 -> 4x4/4t0, beta 0.0"])
        }

        @Test func `have operands of one type`() throws {
            let backend = try FakeDriver.backend()
            let (x, w) = (try backend.empty(Shape(2, 4), .bf16), try backend.empty(Shape(3, 4), .f32))
            let c = try backend.empty(Shape(2, 3), .bf16)
            _ = FakeDriver.takeCalls()
            try backend.matMul(x.matrix, w.transpose, into: c)
            #expect(products() == ["4x3/4t0^T 4x2/4t0 -> 3x2/3t0, beta 0.0"])
            let kernels = FakeDriver.takeCalls("launch").map { $0.split(separator: " ")[1] }
            #expect(kernels == ["convert_bf16_f32", "convert_f32_bf16"])
        }

        @Test func `add a bias while they write, where it is of their type and aligned`() throws {
            let backend = try FakeDriver.backend()
            let (x, w) = (try backend.empty(Shape(3, 16), .bf16), try backend.empty(Shape(8, 16), .bf16))
            let (bias, y) = (try backend.empty(Shape(32), .bf16), try backend.empty(Shape(3, 8), .bf16))
            _ = FakeDriver.takeCalls()
            // The second has the first's descriptors, at another address.
            for place in [0..<8, 16..<24] { try backend.matMul(x.matrix, w.transpose, bias: bias[place], into: y) }
            let product = "16x8/16t14^T 16x3/16t14 -> 8x3/8t14, beta 0.0"
            #expect(products() == ([0, 32] as [UInt64]).map { "\(product), bias at \(bias.address + $0)" })
            #expect(FakeProducts.state.withLock(\.choices) == 1 && FakeDriver.takeCalls("launch").isEmpty)
            try backend.matMul(x.matrix, w.transpose, bias: bias[1..<9], into: y)
            #expect(products().last == product && FakeDriver.takeCalls("launch").count == 1)
        }

        @Test func `ask for an algorithm once for each kind`() throws {
            let backend = try FakeDriver.backend()
            let (x, c) = (try backend.empty(Shape(8, 8), .f32), try backend.empty(Shape(8, 8), .f32))
            for _ in 0..<3 { try backend.matMul(x.matrix, x.matrix, into: c) }
            #expect(FakeProducts.state.withLock(\.choices) == 1)
            try backend.matMul(x.matrix, x.transpose, into: c)
            #expect(FakeProducts.state.withLock(\.choices) == 2)
        }

        @Test func `that nothing can compute say so`() throws {
            let backend = try FakeDriver.backend()
            FakeProducts.state.withLock { $0.finds = false }
            let x = try backend.empty(Shape(8, 8), .f32)
            do {
                try backend.matMul(x.matrix, x.matrix, into: x)
                Issue.record("there is no algorithm")
            } catch {
                #expect("\(error)".hasPrefix("cublasLtMatmulAlgoGetHeuristic of (8, 8) f32 by 8 x (8, 8) f32"))
                #expect("\(error)".contains("CUBLAS_STATUS_NOT_SUPPORTED (15)"))
            }
        }

        @Test func `with nothing to contract leave the old values, scaled`() throws {
            let backend = try FakeDriver.backend()
            let (a, b) = (try backend.empty(Shape(2, 0), .f32), try backend.empty(Shape(0, 3), .f32))
            let c = try backend.empty(Shape(2, 3), .f32)
            _ = FakeDriver.takeCalls()
            try backend.matMul(a.matrix, b.matrix, into: c, adds: true)
            #expect(FakeDriver.takeCalls("launch").isEmpty)
            try backend.matMul(a.matrix, b.matrix, into: c)
            #expect(FakeDriver.takeCalls("launch").map { $0.split(separator: " ")[1] } == ["fill_f32"])
            #expect(products().isEmpty)
        }
    }
}
