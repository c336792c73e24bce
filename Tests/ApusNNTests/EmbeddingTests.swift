import ApusKernels
import ApusNN
import ApusTensor
import ApusTestSupport
import Testing

// Shape letters: T tokens, V vocabulary, D model width.

@Suite struct `An embedding layer` {
    let backend = CPUBackend(threadCount: 2)

    @Test(arguments: [false, true])
    func `has the gradients that differences show`(hasPositions: Bool) throws {
        let table = parameter("table", 11, 6)
        let positions = hasPositions ? parameter("positions", 8, 6) : nil
        let check = try LayerCheck(backend, [table] + (positions.map { [$0] } ?? []))
        let layer = Embedding(table: table, positionTable: positions)
        let tokens = try backend.allocator.integers([3, 3, 10, 0, 7, 3, 1])
        let layout = try TokenLayout.sequences([4, 3], startingAt: [0, 5], backend: backend)
        try check.expect("embedding", inputs: []) { tape, _ in
            [try layer(tokens, ForwardContext(tape: tape, layout: layout))]
        }
    }

    @Test func `adds the rows of token and position`() throws {
        let (table, positions) = (parameter("table", 5, 3), parameter("positions", 9, 3))
        _ = try Placed([table, positions], backend)
        let layout = try TokenLayout.sequences([2, 1], startingAt: [0, 8], backend: backend)
        let context = ForwardContext(tape: Tape(backend: backend, isRecording: false), layout: layout)
        let y = try Embedding(table: table, positionTable: positions)(
            try backend.allocator.integers([4, 0, 4]), context)
        let (rows, offsets) = (try table.acquire(on: .cpu).doubles, try positions.acquire(on: .cpu).doubles)
        let expected: [Double] = zip([4, 0, 4], [0, 1, 8]).flatMap { (token: Int, place: Int) -> [Double] in
            (0..<3).map { (column: Int) -> Double in rows[token * 3 + column] + offsets[place * 3 + column] }
        }
        expectClose(y.tensor, expected, "embedding")
    }
}

@Suite struct `A token layout` {
    @Test func `places sequences, positions and routing groups`() throws {
        let layout = try TokenLayout.sequences(
            [3, 2, 4], startingAt: [0, 7, 1], groupSize: 2, firstGlobalToken: 50, backend: CPUBackend(threadCount: 1))
        #expect(layout.tokenCount == 9)
        #expect(layout.cumulativeLengths.array(of: Int32.self) == [0, 3, 5, 9])
        #expect(layout.positions.array(of: Int32.self) == [0, 1, 2, 7, 8, 1, 2, 3, 4])
        #expect(layout.routingGroups == [0..<5, 5..<9])
        #expect(layout.firstGlobalToken == 50)
    }
}
