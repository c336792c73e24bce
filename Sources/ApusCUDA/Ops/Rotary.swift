public import ApusKernels
public import ApusTensor

// Shape letters: T tokens, H heads.

extension CUDABackend: RotaryOp {
    public func rotaryTable(positions: Int, headWidth: Int, theta: Double) throws -> RotaryTable {
        precondition(headWidth % 2 == 0)
        let cosines = try empty(Shape(positions, headWidth / 2), .f32, .parameters)
        let sines = try empty(Shape(positions, headWidth / 2), .f32, .parameters)
        try launch("rotary_table", .flat(cosines.count), cosines, sines, positions, headWidth, theta)
        return RotaryTable(cosines: cosines, sines: sines)
    }

    public func rotate(_ x: Tensor, positions: Tensor, table: RotaryTable, inverse: Bool, into y: Tensor) throws {
        let (tokens, heads, width) = (y.shape[0], y.shape[1], table.width)
        table.checkHeads(x, y, positions)
        let xHeadStride = x.shape[1] == 1 ? 0 : x.shape[2]
        try launch(
            "rotate_\(x.suffix)", .rows(tokens * heads, width: width / 2), y, y.rowStride, y.shape[2],
            y.shape[2] - width, x, x.rowStride, xHeadStride, x.shape[2] - width, table.cosines, table.sines, positions,
            tokens, heads, width, table.pairing == .neighbours, inverse)
    }
}
