public import ApusKernels
public import ApusTensor

// Shape letters: N rows, V vocabulary, S sequences, T tokens, Hk key heads, H head width.

extension CUDABackend: DecodeOp {
    public func argMax(_ logits: Tensor, into choices: Tensor) throws {
        let (rows, width) = (logits.shape[0], logits.shape[1])
        precondition(logits.dtype == .f32 && choices.shape == Shape(rows, 2))
        try launch("arg_max", .blocks(rows, threads: 1024), choices, logits, logits.rowStride, width)
    }

    public func beginDecodeStep(_ state: DecodeState, blockSize: Int) throws {
        let sequences = state.tokens.count
        try launch(
            "begin_decode_step", .blocks(ceilDivide(sequences, 128), threads: 128), state.tokens, state.positions,
            state.places, state.lengths, state.choices, state.table, state.table.rowStride, blockSize, sequences)
    }

    public func storeKeys(
        _ keys: Tensor, _ values: Tensor, places: Tensor, keptKeys: Tensor, keptValues: Tensor
    ) throws {
        let (tokens, width) = (keys.shape[0], keys.rowCount)
        precondition(places.count == tokens && keptKeys.rowCount == width && keptKeys.dtype == keys.dtype)
        var shape = LaunchShape.rows(tokens, width: width)
        shape.grid.y = 2
        try launch(
            "store_keys_\(keys.suffix)", shape, keptKeys, keptKeys.rowStride, keys, keys.rowStride, keptValues,
            keptValues.rowStride, values, values.rowStride, places, tokens, width)
    }
}
