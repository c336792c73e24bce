import ApusKernels
import ApusTensor

// Shape letters: R routed rows, b rows and columns of a block, n blocks of a block row, P blocks that are there, Q the dense
// extent.

/// The products of `Kernels/block_sparse_sm90a.cu`. Each says whether it was taken: the others are for topologies whose block
/// rows differ, for extents that the copy engine does not take, and for dense operands that are stored transposed.
extension CUDABackend {
    func sddOnHopper(_ a: Matrix, _ b: BlockStack, _ topology: BlockTopology, _ values: Tensor) throws -> Bool {
        guard let blocks = hopperBlocks(topology, values), isForHopper(a), TensorMap.fits(b.tensor) else {
            return false
        }
        try launchSparse(
            "sdd_\(form(b.isTransposed))_sm90a", hopperShape, topology, try boxes(blocks.values),
            try boxes(pick(a.tensor, a.rows)), try boxes(b.tensor), b.sparseExtent, b.denseExtent, blocks.perRow)
        return true
    }

    func dsdOnHopper(
        _ values: Tensor, _ b: BlockStack, _ topology: BlockTopology, _ c: Tensor, adds: Bool
    ) throws -> Bool {
        guard let blocks = hopperBlocks(topology, values), TensorMap.fits(b.tensor), TensorMap.fits(c) else {
            return false
        }
        try launchSparse(
            "dsd_\(form(b.isTransposed))_sm90a", hopperShape, topology, try boxes(c), c, c.rowStride,
            try boxes(blocks.values), try boxes(b.tensor), adds, b.sparseExtent, b.denseExtent, blocks.perRow)
        return true
    }

    func dstdOnHopper(
        _ values: Tensor, _ b: Matrix, _ topology: BlockTopology, _ c: BlockStack, adds: Bool
    ) throws -> Bool {
        guard let blocks = hopperBlocks(topology, values), isForHopper(b), TensorMap.fits(c.tensor) else {
            return false
        }
        try launchSparse(
            "dstd_\(form(c.isTransposed))_sm90a_\(c.tensor.suffix)", hopperShape, topology, try boxes(c.tensor),
            try boxes(blocks.values), try boxes(pick(b.tensor, b.rows)), topology.blockColumns, adds, c.sparseExtent,
            c.denseExtent, blocks.perRow)
        return true
    }

    /// All values as one matrix (P b / n, n b), and n, where those kernels may be chosen.
    private func hopperBlocks(_ topology: BlockTopology, _ values: Tensor) -> (values: Tensor, perRow: Int)? {
        guard hasHopperTiles, topology.isTiled(values.dtype), let perRow = topology.blocksPerRow, perRow > 0,
            topology.blocks > 0
        else { return nil }
        let matrix = values.reshaped(values.count)[0..<topology.valueCount]
            .reshaped(topology.blocks / perRow * topology.blockSize, perRow * topology.blockSize)
        return TensorMap.fits(matrix) ? (matrix, perRow) : nil
    }

    /// Whether the copy engine takes a dense operand (R, Q), whose rows are gathered before if they are picked.
    private func isForHopper(_ dense: Matrix) -> Bool {
        !dense.isTransposed && dense.rowCount > 0 && TensorMap.fits(dense.tensor)
    }

    /// A map for boxes of 64 rows of 128 bytes.
    private func boxes(_ tensor: Tensor) throws -> TensorMap { try map(tensor, boxRows: 64) }
}

extension BlockStack {
    /// Elements of one expert along the sparse matrix' columns.
    fileprivate var sparseExtent: Int { tensor.shape[isTransposed ? 2 : 1] }
}
