public import ApusKernels
public import ApusTensor

// Shape letters: R routed rows sorted by expert, E experts, N and K the extents of each expert's weight.

extension CUDABackend: GroupedMatMulOp {
    public func groupedMatMul(
        _ x: Tensor, rows: Tensor?, weights: Tensor, transposed: Bool, offsets: Tensor, into out: Tensor
    ) throws {
        let experts = weights.shape[0]
        let (n, k) = (weights.shape[transposed ? 1 : 2], weights.shape[transposed ? 2 : 1])
        precondition(offsets.count == experts + 1 && weights.isContiguous)
        precondition(x.rowCount == k && out.rowCount == n && x.dtype == weights.dtype && x.dtype == out.dtype)
        guard out.count > 0 else { return }
        let form = transposed ? "grouped_transposed" : "grouped"
        let stacked = weights.reshaped(experts * weights.shape[1], weights.shape[2])
        if x.dtype == .bf16, hasHopperProducts(experts), [x, stacked, out].allSatisfy(TensorMap.fits) {
            let picked = try pick(x, rows)
            return try launch(
                "\(form)_sm90a", hopperShape, try map(picked, boxRows: 128),
                try map(stacked, boxRows: transposed ? 128 : 64), try map(out, boxRows: 64), out, out.rowStride,
                offsets, experts, n, k)
        }
        // The rows of each expert are known on the device alone: as many tiles as there can be, the last ones idle.
        let tiles = ceilDivide(out.shape[0], 128) + experts
        try launch(
            "\(form)_\(x.suffix)\(tileSuffix(x))", tiledShape(ceilDivide(n, tileColumns(x)) * tiles, 1, x), out,
            out.rowStride, x,
            x.rowStride, rows, weights, offsets, experts, n, k)
    }

    public func groupedWeightGradient(
        _ dy: Tensor, _ x: Tensor, rows: Tensor?, offsets: Tensor, into gradient: Tensor, adds: Bool
    ) throws {
        let (experts, n, k) = (gradient.shape[0], gradient.shape[1], gradient.shape[2])
        precondition(offsets.count == experts + 1 && gradient.isContiguous && dy.dtype == x.dtype)
        precondition(dy.rowCount == n && x.rowCount == k)
        guard dy.count > 0 else {
            if !adds { try fill(gradient, with: 0) }
            return
        }
        if x.dtype == .bf16, hasHopperProducts(experts), [dy, x, gradient].allSatisfy(TensorMap.fits) {
            return try launch(
                "grouped_gradient_sm90a_\(gradient.suffix)", hopperShape, try map(dy, boxRows: 64),
                try map(try pick(x, rows), boxRows: 64), try map(gradient, boxRows: 64), offsets, experts, n, k,
                adds ? 1 : 0)
        }
        let name = x.dtype == .bf16 ? "grouped_gradient_bf16_\(gradient.suffix)" : "grouped_gradient_f32"
        try launch(
            KernelName(name + tileSuffix(x)),
            tiledShape(ceilDivide(n, 128) * ceilDivide(k, tileColumns(x)), experts, x), gradient, dy,
            dy.rowStride, x, x.rowStride, rows, offsets, n, k, adds ? 1 : 0)
    }

    /// Columns of a tile of `Kernels/grouped_bf16.cu` and `grouped_f32.cu`; its rows are 128.
    private func tileColumns(_ x: Tensor) -> Int { x.dtype == .bf16 && hasWideTiles ? 256 : 128 }

    /// What the narrower tiles of `Kernels/grouped_bf16.cu` have behind their names.
    private func tileSuffix(_ x: Tensor) -> String { x.dtype == .bf16 && !hasWideTiles ? "_128" : "" }

    /// Whether a block gets the ring of the wider tiles: Hopper's does, that of an A100 or a GeForce does not.
    private var hasWideTiles: Bool { limits.sharedMemory >= 256 * 768 }

    private func tiledShape(_ blocks: Int, _ experts: Int, _ x: Tensor) -> LaunchShape {
        guard x.dtype == .bf16 else { return LaunchShape(grid: (blocks, experts, 1), block: (256, 1, 1)) }
        let columns = tileColumns(x)
        return LaunchShape(grid: (blocks, experts, 1), block: (columns, 1, 1), sharedBytes: columns * 768)
    }

    /// Whether `Kernels/grouped_sm90a.cu` and its like are there, and take as many experts.
    func hasHopperProducts(_ experts: Int) -> Bool { hasHopperTiles && experts <= 256 }

    /// Whether the tiles of `Kernels/hopper_tiles.cuh` are there.
    var hasHopperTiles: Bool { limits.hasHopperKernels && limits.sharedMemory >= hopperShape.sharedBytes }

    /// A block on every multiprocessor, which walks the tiles.
    var hopperShape: LaunchShape {
        .blocks(device.multiprocessors, threads: 384, sharedBytes: 232_448)
    }

    /// For boxes of 128 bytes by `boxRows` rows; of a stack of matrices, by as many rows of one, or by one row of `planes`
    /// matrices.
    func map(_ matrix: Tensor, boxRows: Int = 1, planes: Int = 1) throws -> TensorMap {
        try TensorMap(matrix, boxRows: boxRows, planes: planes, driver: queue.context.driver)
    }

    /// The copy engine finds rows in order only: picked ones are gathered before.
    func pick(_ x: Tensor, _ rows: Tensor?) throws -> Tensor {
        guard let rows else { return x }
        let picked = try empty(Shape(rows.count, x.rowCount), x.dtype, .workspace)
        try gatherRows(x, index: rows, scale: nil, into: picked)
        return picked
    }
}
