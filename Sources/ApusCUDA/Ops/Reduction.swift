import ApusKernels
public import ApusTensor

// Shape letters: R rows, D width.

extension CUDABackend {
    /// Elements of one partial sum of a whole tensor, and rows of one of columns; `Kernels/reduce.cuh` has the same.
    static let blockElements = 65_536
    private static let blockRows = 128

    public func addColumnSums(_ source: Tensor, into sums: Tensor) throws {
        let (rows, width) = (source.shape[0], source.rowCount)
        precondition(sums.count == width)
        let blocks = ceilDivide(rows, CUDABackend.blockRows)
        let partials = try empty(Shape(blocks, width), .f32, .workspace)
        try launch(
            "column_sums_\(source.suffix)",
            LaunchShape(grid: (ceilDivide(width, 256), blocks, 1), block: (256, 1, 1)), partials, source,
            source.rowStride, rows, width)
        try addPartials(partials, blocks, into: sums)
    }

    /// `sums += ` the `count` rows of partial sums, in order.
    func addPartials(_ partials: Tensor, _ count: Int, into sums: Tensor) throws {
        guard count > 0 else { return }
        try launch(
            "add_partials_\(sums.suffix)",
            LaunchShape(grid: (ceilDivide(sums.count, 32), 1, 1), block: (32, 32, 1)), sums, partials, count, sums.count
        )
    }

    public func sum(_ tensor: Tensor, factor: Float, into result: Tensor) throws {
        precondition(tensor.dtype == .f32 && tensor.isContiguous)
        let blocks = ceilDivide(tensor.count, CUDABackend.blockElements)
        // A partial sum is a double: two words.
        let partials = try empty(Shape(max(blocks, 1), 2), .f32, .workspace)
        try launch("sum_f32", .blocks(blocks), partials, tensor, tensor.count)
        try finishSum(partials, blocks, factor: factor, into: result)
    }

    /// `result[0] = factor * ` the sum of `count` doubles, in order.
    func finishSum(_ partials: Tensor, _ count: Int, factor: Float, into result: Tensor) throws {
        try launch("finish_sum", .blocks(1), result, partials, count, factor)
    }

    public func countNonFinite(_ tensor: Tensor) throws -> Int {
        let count = try zeros(Shape(1), .i32, .workspace)
        let dense = try dense(tensor)
        try launch("count_nonfinite_\(tensor.suffix)", .flat(dense.count), count, dense, dense.count)
        return Int(try array(count, of: Int32.self)[0])
    }
}
