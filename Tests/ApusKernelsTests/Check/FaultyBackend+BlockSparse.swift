import ApusKernels
import ApusTensor

/// Products with a block-sparse matrix.
extension FaultyBackend {
    func blockTopology(
        offsets: Tensor, rowBound: Int, blocksPerExpert: Int, blockSize: Int
    ) throws -> BlockTopology {
        let result = try inner.blockTopology(
            offsets: offsets, rowBound: rowBound, blocksPerExpert: blocksPerExpert, blockSize: blockSize)
        done(
            .blockTopology, result.columnIndices, result.rowIndices, result.rowOffsets, result.columnOffsets,
            result.transposeIndices, result.rowStarts)
        return result
    }

    func sdd(_ a: Matrix, _ b: BlockStack, topology: BlockTopology, into values: Tensor) throws {
        try inner.sdd(a, b, topology: topology, into: values)
        done(.sdd, values)
    }

    func dsd(_ values: Tensor, _ b: BlockStack, topology: BlockTopology, into c: Tensor, adds: Bool) throws {
        try inner.dsd(values, b, topology: topology, into: c, adds: adds)
        done(.dsd, c)
    }

    func dstd(_ values: Tensor, _ b: Matrix, topology: BlockTopology, into c: BlockStack, adds: Bool) throws {
        try inner.dstd(values, b, topology: topology, into: c, adds: adds)
        done(.dstd, c.tensor)
    }

    func dds(_ a: Matrix, _ values: Tensor, topology: BlockTopology, into c: BlockStack, adds: Bool) throws {
        try inner.dds(a, values, topology: topology, into: c, adds: adds)
        done(.dds, c.tensor)
    }

    func ddst(_ a: BlockStack, _ values: Tensor, topology: BlockTopology, into c: Tensor, adds: Bool) throws {
        try inner.ddst(a, values, topology: topology, into: c, adds: adds)
        done(.ddst, c)
    }
}
