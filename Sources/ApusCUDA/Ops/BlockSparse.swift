public import ApusKernels
public import ApusTensor

// Shape letters: R routed rows, E experts, b rows and columns of a block, M block rows, N block columns, P blocks that are
// there, Q the dense extent.

extension CUDABackend: BlockSparseOp {
    public func blockTopology(
        offsets: Tensor, rowBound: Int, blocksPerExpert: Int, blockSize: Int
    ) throws -> BlockTopology {
        let experts = offsets.count - 1
        let rows = BlockTopology.blockRowBound(rows: rowBound, experts: experts, blockSize: blockSize)
        func index(_ count: Int) throws -> Tensor { try empty(Shape(count), .i32) }
        let topology = BlockTopology(
            blockSize: blockSize, blockColumns: experts * blocksPerExpert,
            columnIndices: try index(rows * blocksPerExpert), rowIndices: try index(rows * blocksPerExpert),
            rowOffsets: try index(rows + 1), columnOffsets: try index(experts * blocksPerExpert + 1),
            transposeIndices: try index(rows * blocksPerExpert), rowStarts: try index(rows + 1),
            blocksPerRow: blocksPerExpert)
        try launch(
            "block_topology", .blocks(ceilDivide(rows + 1, 256), sharedBytes: 4 * (experts + 1)),
            topology.columnIndices, topology.rowIndices, topology.rowOffsets, topology.columnOffsets,
            topology.transposeIndices, topology.rowStarts, offsets, experts, blocksPerExpert, blockSize, rows)
        return topology
    }

    public func sdd(_ a: Matrix, _ b: BlockStack, topology: BlockTopology, into values: Tensor) throws {
        let stack = b.tensor.shape
        precondition(a.columnCount == b.denseExtent && values.dtype == a.tensor.dtype && values.dtype == b.tensor.dtype)
        if try sddOnHopper(a, b, topology, values) { return }
        guard topology.isTiled(values.dtype) else {
            return try launchSparse(
                "sdd_any_\(values.suffix)", .blocks(ceilDivide(topology.blockElements, 256) * topology.blocks),
                topology, values, a.tensor, a.tensor.rowStride, a.rows, a.isTransposed, b.tensor, stack[1], stack[2],
                b.isTransposed)
        }
        try launchSparse(
            "sdd_\(form(a.isTransposed))\(form(b.isTransposed))_bf16",
            tiledShape(topology.blocks * topology.tiles * topology.tiles, 1), topology, values, a.tensor,
            a.tensor.rowStride, a.rows, b.tensor, stack[1], stack[2])
    }

    public func dsd(_ values: Tensor, _ b: BlockStack, topology: BlockTopology, into c: Tensor, adds: Bool) throws {
        if try dsdOnHopper(values, b, topology, c, adds: adds) { return }
        try rowProduct("dsd", values, b, topology, into: c, isResultTransposed: false, adds: adds)
    }

    public func ddst(_ a: BlockStack, _ values: Tensor, topology: BlockTopology, into c: Tensor, adds: Bool) throws {
        try rowProduct("ddst", values, a, topology, into: c, isResultTransposed: true, adds: adds)
    }

    /// `c (+)= S b`, or its transpose.
    private func rowProduct(
        _ name: String, _ values: Tensor, _ b: BlockStack, _ topology: BlockTopology, into c: Tensor,
        isResultTransposed: Bool, adds: Bool
    ) throws {
        let (stack, extent) = (b.tensor.shape, b.denseExtent)
        precondition(c.shape[isResultTransposed ? 0 : 1] == extent)
        precondition(c.dtype == values.dtype && b.tensor.dtype == values.dtype)
        guard topology.isTiled(values.dtype) else {
            let rows = c.shape[isResultTransposed ? 1 : 0]
            return try launchSparse(
                "dsd_any_\(values.suffix)", LaunchShape(grid: (rows, ceilDivide(extent, 256), 1), block: (256, 1, 1)),
                topology, c, c.rowStride, isResultTransposed, values, b.tensor, stack[1], stack[2], b.isTransposed, adds
            )
        }
        try launchSparse(
            "\(name)_\(form(b.isTransposed))_bf16",
            tiledShape(ceilDivide(extent, 128), topology.blockRows * topology.tiles), topology, c, c.rowStride, values,
            b.tensor, stack[1], stack[2], adds)
    }

    public func dds(_ a: Matrix, _ values: Tensor, topology: BlockTopology, into c: BlockStack, adds: Bool) throws {
        let rows = Matrix(a.tensor, transposed: !a.isTransposed, rows: a.rows)
        try dstd(values, rows, topology: topology, into: c, adds: adds)
    }

    public func dstd(_ values: Tensor, _ b: Matrix, topology: BlockTopology, into c: BlockStack, adds: Bool) throws {
        let (stack, extent) = (c.tensor.shape, c.denseExtent)
        precondition(b.columnCount == extent && b.tensor.dtype == values.dtype)
        if try dstdOnHopper(values, b, topology, c, adds: adds) { return }
        guard topology.isTiled(values.dtype) && !b.isTransposed else {
            return try launchSparse(
                "dstd_any_\(values.suffix)_\(c.tensor.suffix)",
                LaunchShape(
                    grid: (topology.blockColumns * topology.blockSize, ceilDivide(extent, 256), 1), block: (256, 1, 1)),
                topology, c.tensor, stack[1], stack[2], c.isTransposed, values, b.tensor, b.tensor.rowStride, b.rows,
                b.isTransposed, adds)
        }
        try launchSparse(
            "dstd_\(form(c.isTransposed))_bf16_\(c.tensor.suffix)",
            tiledShape(ceilDivide(extent, 128), topology.blockColumns * topology.tiles), topology, c.tensor, stack[1],
            stack[2], values, b.tensor, b.tensor.rowStride, b.rows, adds)
    }

    /// Launches a kernel whose last arguments are the topology.
    func launchSparse<each Argument: KernelArgument>(
        _ name: KernelName, _ shape: LaunchShape, _ topology: BlockTopology, _ arguments: repeat each Argument
    ) throws {
        try launch(
            name, shape, repeat each arguments, topology.columnIndices, topology.rowIndices, topology.rowOffsets,
            topology.columnOffsets, topology.transposeIndices, topology.rowStarts, topology.blockRows,
            topology.blockSize)
    }

    /// As it stands, or transposed, in the names of kernels.
    func form(_ isTransposed: Bool) -> String { isTransposed ? "t" : "n" }

    /// Tiles of 128 x 128 on the tensor cores; `Kernels/block_sparse_bf16.cu` has the same.
    private func tiledShape(_ x: Int, _ y: Int) -> LaunchShape {
        LaunchShape(grid: (x, y, 1), block: (128, 1, 1), sharedBytes: 98_304)
    }
}

extension BlockTopology {
    /// Whether the kernels on the tensor cores take these blocks.
    func isTiled(_ dtype: DType) -> Bool { dtype == .bf16 && blockSize % 64 == 0 }
    /// Tiles along one side of a block.
    fileprivate var tiles: Int { ceilDivide(blockSize, 128) }
    fileprivate var blockElements: Int { blockSize * blockSize }
}
