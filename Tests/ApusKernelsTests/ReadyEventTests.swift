import ApusKernels
import ApusTensor
import ApusTestSupport
import Testing

/// Ops must wait for every tensor that they read, not for the first alone.
@Suite struct `An op` {
    private struct Failed: Error {}

    private let backend = CPUBackend(threadCount: 1)

    /// A tensor whose work has failed: an op that waits for it fails with it, one that does not goes on.
    private func failed(_ shape: Shape, _ dtype: DType = .f32) throws -> Tensor {
        var tensor = try backend.zeros(shape, dtype)
        let event = Event()
        event.signal(.failure(Failed()))
        tensor.ready = event
        return tensor
    }

    private func zeros(_ shape: Shape, _ dtype: DType = .f32) throws -> Tensor { try backend.zeros(shape, dtype) }

    @Test func `waits for every operand of attention`() throws {
        let lengths = try backend.allocator.tensor([0, 4] as [Int32], Shape(2))
        let heads = Shape(4, 2, 8)
        func run(_ keys: Tensor, _ values: Tensor, _ firstKey: Tensor?) throws {
            try backend.attention(
                zeros(heads), cumulativeLengths: lengths,
                kv: KVView(keys: keys, values: values, layout: .contiguous(cumulativeLengths: lengths)),
                mask: AttentionMask(isCausal: true, firstKey: firstKey), scale: 1, into: zeros(heads), logSumExp: nil)
        }
        try run(zeros(heads), zeros(heads), nil)
        #expect(throws: Failed.self) { try run(failed(heads), zeros(heads), nil) }
        #expect(throws: Failed.self) { try run(zeros(heads), failed(heads), nil) }
        #expect(throws: Failed.self) { try run(zeros(heads), zeros(heads), failed(Shape(4), .i32)) }
    }

    @Test func `waits for what backward keeps`() throws {
        let rows = Shape(4, 8)
        #expect(throws: Failed.self) {
            try backend.activateBackward(.relu, zeros(rows), h: failed(rows), into: zeros(rows), recomputed: nil)
        }
        #expect(throws: Failed.self) {
            try backend.combineRowsBackward(
                zeros(rows), rows: failed(rows), slotToRow: zeros(Shape(4), .i32), weights: nil, choices: 1,
                drows: zeros(rows), dweights: zeros(Shape(4, 1)))
        }
        #expect(throws: Failed.self) {
            try backend.rmsNormBackward(
                zeros(rows), x: zeros(rows), weight: zeros(Shape(8)), rstd: failed(Shape(4)), into: zeros(rows),
                adds: false, weightGradient: nil)
        }
    }

    @Test func `waits for what it adds to`() throws {
        let square = Shape(4, 4)
        #expect(throws: Failed.self) {
            try backend.matMul(zeros(square).matrix, zeros(square).matrix, into: failed(square), adds: true)
        }
        try backend.matMul(zeros(square).matrix, zeros(square).matrix, into: failed(square), adds: false)
        #expect(throws: Failed.self) { try backend.addColumnSums(zeros(square), into: failed(Shape(4))) }
        #expect(throws: Failed.self) { try backend.addScaled(zeros(square), factor: 1, into: failed(square)) }
    }
}
