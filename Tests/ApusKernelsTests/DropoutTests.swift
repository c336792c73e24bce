import ApusKernels
import ApusTensor
import ApusTestSupport
import Testing

// Shape letters: R rows, F columns of a row.

/// Dropping numbers of rows: what, how many, and that it does not depend on where a row lies.
@Suite struct DropoutTests {
    let backend = CPUBackend(threadCount: 2)
    let stream = RandomStream(seed: 5, purpose: .expertDropout, layer: 2, step: 7)

    private func dropped(
        _ x: Tensor, _ numbers: [Int], from first: Int = 0, of columns: Int, rate: Float, stream: RandomStream? = nil
    ) throws -> Tensor {
        let digits = numbers.flatMap { [Float($0 / 65_536), Float($0 % 65_536)] }
        let y = try backend.empty(x.shape, x.dtype)
        try backend.dropRows(
            x,
            RowDropout(
                numbers: backend.allocator.tensor(digits, Shape(numbers.count, 2)), firstColumn: first,
                columns: columns, rate: rate, stream: stream ?? self.stream), into: y)
        return y
    }

    @Test(arguments: [Float(0.1), 0.5, 0.9])
    func `as many as the rate says, and the others larger`(_ rate: Float) throws {
        let (rows, width) = (200, 333)
        let x = try backend.empty(Shape(rows, width), .f32)
        backend.fill(x, with: 3)
        let y = try dropped(x, Array(0..<rows), of: width, rate: rate).floats()
        let gone = y.count { $0 == 0 }
        let expected = Double(rate) * Double(rows * width)
        let deviation = (expected * (1 - Double(rate))).squareRoot()
        #expect(abs(Double(gone) - expected) < 5 * deviation, "\(gone) of \(expected)")
        #expect(y.allSatisfy { $0 == 0 || abs($0 - 3 / (1 - rate)) < 1e-5 })
    }

    @Test(arguments: [DType.f32, .bf16], [1, 7, 255, 300])
    func `a row has its own draws wherever it lies and however it is cut`(_ dtype: DType, _ width: Int) throws {
        let numbers = [4_000_000_001, 3, 65_536, 0, 65_535, 12]
        let x = try backend.allocator.random(Shape(numbers.count, width), dtype, seed: 3)
        let whole = try dropped(x, numbers, of: width, rate: 0.4)
        for (row, number) in numbers.enumerated() {
            let alone = try dropped(x[row..<row + 1], [number], of: width, rate: 0.4)
            #expect(alone.doubles == whole[row..<row + 1].doubles)
        }
        let cut = width / 3
        let parts = try [0..<cut, cut..<width].filter { !$0.isEmpty }.map { range in
            let dense = try backend.empty(Shape(numbers.count, range.count), dtype)
            try backend.copy(x.columns(range), into: dense)
            return (range, try dropped(dense, numbers, from: range.lowerBound, of: width, rate: 0.4))
        }
        for (range, part) in parts {
            let expected = try backend.empty(part.shape, dtype)
            try backend.copy(whole.columns(range), into: expected)
            #expect(part.doubles == expected.doubles, "columns \(range)")
        }
    }

    @Test func `rows and steps differ`() throws {
        let x = try backend.empty(Shape(2, 4096), .f32)
        backend.fill(x, with: 1)
        let y = try dropped(x, [1, 2], of: 4096, rate: 0.5)
        #expect(y[0..<1].floats() != y[1..<2].floats())
        let later = RandomStream(seed: 5, purpose: .expertDropout, layer: 2, step: 8)
        #expect(try dropped(x, [1, 2], of: 4096, rate: 0.5, stream: later).floats() != y.floats())
    }

    @Test func `threads change no bit`() throws {
        let x = try backend.allocator.random(Shape(300, 511), .f32, seed: 3)
        let numbers = Array(0..<300)
        let one = CPUBackend(threadCount: 1)
        let digits = numbers.flatMap { [Float(0), Float($0)] }
        let dropout = RowDropout(
            numbers: try one.allocator.tensor(digits, Shape(300, 2)), columns: 511, rate: 0.3, stream: stream)
        let y = try one.empty(x.shape, .f32)
        try one.dropRows(x, dropout, into: y)
        expectSameBits(try dropped(x, numbers, of: 511, rate: 0.3), y, "dropped")
    }
}
