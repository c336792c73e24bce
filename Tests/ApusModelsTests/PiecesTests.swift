import ApusKernels
import ApusTensor
import Testing

@testable import ApusModels

@Suite struct `Pieces of a tensor` {
    private let backend = CPUBackend(threadCount: 1)

    /// Sizes of the pieces, and all their bytes.
    private func pieces(_ tensor: Tensor, byteCount: Int) throws -> (sizes: [Int], bytes: [UInt8]) {
        var (sizes, bytes) = ([Int](), [UInt8]())
        try backend.forEachPiece(of: tensor, byteCount: byteCount) {
            sizes.append($0.count)
            bytes += $0
        }
        return (sizes, bytes)
    }

    @Test(arguments: [(1, 12), (4, 12), (20, 3), (44, 2), (47, 2), (48, 1), (1000, 1)])
    func `are whole elements in their order`(byteCount: Int, count: Int) throws {
        let values = (0..<12).map { Int32($0 * 1_000_003) }
        let found = try pieces(backend.tensor(values, Shape(2, 3, 2)), byteCount: byteCount)
        #expect(found.sizes.count == count)
        #expect(found.bytes == values.withUnsafeBytes(Array.init))
    }

    @Test func `are one of nothing where there are no elements, and one of a scalar`() throws {
        #expect(try pieces(backend.empty(Shape(0, 7), .bf16), byteCount: 64).sizes == [0])
        #expect(try pieces(backend.tensor([1.5 as Float], Shape()), byteCount: 64).sizes == [4])
    }

    @Test func `end with the first that cannot be taken`() throws {
        struct Full: Error {}
        let tensor = try backend.zeros(Shape(64), .f32)
        var taken = 0
        #expect(throws: Full.self) {
            try backend.forEachPiece(of: tensor, byteCount: 64) { _ in
                taken += 1
                if taken == 2 { throw Full() }
            }
        }
        #expect(taken == 2)
    }
}
