import ApusKernels
import ApusTensor
import Testing

@Suite struct BlockTopologyTests {
    private let backend = CPUBackend(threadCount: 2)

    private func integers(_ tensor: Tensor) -> [Int] { tensor.array(of: Int32.self).map(Int.init) }

    @Test func `the worked example of the paper`() throws {
        // MegaBlocks figure 5: six block rows, four block columns.
        let topology = try BlockTopology(
            rows: [[0], [2], [], [], [0, 3], [2]], blockColumns: 4, blockSize: 2, on: backend)
        #expect(integers(topology.columnIndices) == [0, 2, 0, 3, 2])
        #expect(integers(topology.rowOffsets) == [0, 1, 2, 2, 2, 4, 5])
        #expect(integers(topology.rowIndices) == [0, 1, 4, 4, 5])
        #expect(integers(topology.columnOffsets) == [0, 2, 2, 4, 5])
        #expect(integers(topology.transposeIndices) == [0, 2, 1, 4, 3])
        #expect((topology.blockRows, topology.blocks, topology.valueCount) == (6, 5, 20))
        #expect(topology.blocksPerRow == nil)
    }

    @Test func `experts side by side, the last block row of each ragged`() throws {
        let offsets = try backend.allocator.tensor([0, 5, 5, 13, 17] as [Int32], Shape(5))
        let topology = try backend.blockTopology(offsets: offsets, rowBound: 17, blocksPerExpert: 2, blockSize: 4)
        #expect(integers(topology.rowStarts) == [0, 4, 5, 9, 13, 17])
        #expect(integers(topology.columnIndices) == [0, 1, 0, 1, 4, 5, 4, 5, 6, 7])
        #expect(integers(topology.rowOffsets) == [0, 2, 4, 6, 8, 10])
        #expect(integers(topology.rowIndices) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4])
        #expect(integers(topology.columnOffsets) == [0, 2, 4, 4, 4, 6, 8, 9, 10])
        #expect(integers(topology.transposeIndices) == [0, 2, 1, 3, 4, 6, 5, 7, 8, 9])
        #expect(topology.blockColumns == 8)
        #expect(topology.blocksPerRow == 2)
    }

    @Test func `as many blocks in every row is known, whichever they are`() throws {
        func perRow(_ rows: [[Int]], starts: [Int]) throws -> Int? {
            try BlockTopology(rows: rows, blockColumns: 4, blockSize: 2, starts: starts, on: backend).blocksPerRow
        }
        #expect(try perRow([[0, 3], [1, 2], []], starts: [0, 2, 3, 3]) == 2)
        // Rows without blocks, and values that do not begin at 2 i.
        #expect(try perRow([[0, 3], [1, 2], []], starts: [0, 2, 3, 4]) == nil)
        #expect(try perRow([[0], [], [1]], starts: [0, 2, 2, 4]) == nil)
        #expect(try perRow([[0, 1], [2]], starts: [0, 2, 4]) == nil)
        #expect(try perRow([[], []], starts: [0, 0, 0]) == nil)
    }

    @Test func `no row at all`() throws {
        let offsets = try backend.allocator.tensor([3, 3, 3] as [Int32], Shape(3))
        let topology = try backend.blockTopology(offsets: offsets, rowBound: 17, blocksPerExpert: 3, blockSize: 4)
        #expect((topology.blockRows, topology.blocks, topology.blockColumns) == (0, 0, 6))
    }
}
