import ApusExperts
import ApusKernels
import ApusNN
import ApusTensor
import ApusTestSupport
import Testing

// Shape letters: T tokens, D model width, F expert width, E experts, b rows and columns of a block.

/// The block-sparse bank computes what the grouped one does.
@Suite struct BlockSparseBankTests {
    @Test(arguments: Activation.allCases, [(4, 12), (12, 12), (128, 256)])
    func `outputs and gradients are those of the grouped bank`(
        _ activation: Activation, _ sizes: (block: Int, width: Int)
    ) throws {
        for precision in [Precision.f32, .bf16] {
            for tokens in [1, 37, 300] {
                let backend = CPUBackend(threadCount: 2)
                func fixture(_ bank: ExpertBankKind) throws -> LayerFixture {
                    try LayerFixture(
                        MoEConfiguration(
                            experts: 5, choices: 2, width: sizes.width, activation: activation, bank: bank,
                            blockSize: sizes.block), width: 20, precision: precision, backend: backend)
                }
                let (grouped, sparse) = (try fixture(.grouped), try fixture(.blockSparse))
                #expect(sparse.bank is BlockSparseBank)
                let (x, dy) = (try grouped.input(tokens), try grouped.input(tokens, seed: 8))
                let expected = try LayerPass(grouped, x, dy: dy)
                let found = try LayerPass(sparse, x, dy: dy)
                let tolerance = precision == .f32 ? 1e-5 : 1e-2
                expectClose(found.output, expected.output.doubles, within: tolerance, "output")
                expectClose(
                    try #require(found.inputGradient), try #require(expected.inputGradient).doubles, within: tolerance,
                    "gradient of the input")
                for parameter in grouped.store.parameters {
                    let gradient = try #require(try sparse.store[parameter.name]?.gradient())
                    expectClose(
                        gradient, try #require(try parameter.gradient()).doubles, within: tolerance, "\(parameter.name)"
                    )
                }
            }
        }
    }

    @Test func `ranges of its experts add up to the bank`() throws {
        let fixture = try LayerFixture(
            MoEConfiguration(experts: 5, choices: 1, width: 8, bank: .blockSparse, blockSize: 4), width: 6)
        let backend = fixture.backend
        let offsets = [0, 3, 3, 9, 10, 17]
        let rows = try fixture.input(17)
        let tape = Tape(backend: backend, isRecording: false)
        let whole = try fixture.bank(
            RoutedRows(rows: .constant(rows), offsets: backend.allocator.integers(offsets)), on: tape)
        for range in [0..<2, 2..<5] {
            let part = try fixture.bank.restricted(to: range)(
                RoutedRows(
                    rows: .constant(rows),
                    offsets: backend.allocator.integers(Array(offsets[range.lowerBound...range.upperBound]))), on: tape)
            let covered = offsets[range.lowerBound]..<offsets[range.upperBound]
            expectClose(part.tensor[covered], whole.tensor[covered].doubles, "experts \(range)")
        }
    }
}
