import ApusTensor
import Testing

@Suite struct `Shapes` {
    @Test(arguments: [
        ([], 1, 1), ([7], 7, 1), ([3, 5], 15, 5), ([2, 3, 4], 24, 12), ([2, 3, 4, 5], 120, 60), ([0, 8], 0, 8),
        ([4, 0], 0, 0),
    ])
    func `count elements and the elements of a row`(dimensions: [Int], count: Int, rowCount: Int) {
        let shape = Shape(dimensions)
        #expect(shape.rank == dimensions.count)
        #expect(shape.dimensions == dimensions)
        #expect(shape.count == count)
        #expect(shape.rowCount == rowCount)
    }

    @Test func `are read from either end`() {
        let shape = Shape(2, 3, 4)
        #expect((0..<3).map { shape[$0] } == [2, 3, 4])
        #expect((-3..<0).map { shape[$0] } == [2, 3, 4])
    }

    @Test func `differ by rank even where the extents agree`() {
        #expect(Shape(3) != Shape(3, 1))
        #expect(Shape(3, 1) == Shape([3, 1]))
        #expect(Shape(3, 2) != Shape(2, 3))
    }

    @Test func `exchange their first extent`() {
        #expect(Shape(2, 3, 4).replacingFirst(with: 9) == Shape(9, 3, 4))
    }

    @Test func `print as a tuple`() {
        #expect("\(Shape(2048, 256))" == "(2048, 256)")
        #expect("\(Shape())" == "()")
    }

    @Test(arguments: zip(DType.allCases, [4, 2, 4, 1]))
    func `have a size in bytes for each type`(dtype: DType, bytes: Int) {
        #expect(dtype.byteCount == bytes)
        #expect(dtype.byteCount(elements: 10) == 10 * bytes)
        #expect(dtype.isFloating == (dtype == .f32 || dtype == .bf16))
    }
}
