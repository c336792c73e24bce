public import ApusTensor
import CApusKernels

/// Cosines and sines of every position's angles, (positions, dh / 2) each, `f32`.
public struct RotaryTable: Sendable {
    /// Cosines.
    public let cosines: Tensor
    /// Sines.
    public let sines: Tensor

    /// A table of the given tensors.
    public init(cosines: Tensor, sines: Tensor) {
        self.cosines = cosines
        self.sines = sines
    }

    /// Positions that the table covers.
    public var positionCount: Int { cosines.shape[0] }
}

/// Rotary position embedding (Su et al., RoFormer, section 3.2), element `i` of a head paired with `i + dh / 2`.
public protocol RotaryOp {
    /// The table for heads `headWidth` wide with base `theta`.
    func rotaryTable(positions: Int, headWidth: Int, theta: Double) throws -> RotaryTable
    /// Rotates heads (T, H, dh) by the angles of `positions` (T) `i32`; with `inverse` by the negated angles, which is the
    /// gradient. `y` may be `x`. Positions must be below the table's count.
    func rotate(_ x: Tensor, positions: Tensor, table: RotaryTable, inverse: Bool, into y: Tensor) throws
}

extension CPUBackend: RotaryOp {
    public func rotaryTable(positions: Int, headWidth: Int, theta: Double) throws -> RotaryTable {
        precondition(headWidth % 2 == 0)
        let cosines = try empty(Shape(positions, headWidth / 2), .f32, .parameters)
        let sines = try empty(Shape(positions, headWidth / 2), .f32, .parameters)
        apus_rope_table(cosines.pointer(), sines.pointer(), positions, headWidth, theta)
        return RotaryTable(cosines: cosines, sines: sines)
    }

    public func rotate(_ x: Tensor, positions: Tensor, table: RotaryTable, inverse: Bool, into y: Tensor) throws {
        let (heads, width) = (x.shape[1], x.shape[2])
        precondition(y.shape == x.shape && positions.count == x.shape[0] && table.cosines.shape[1] * 2 == width)
        try x.waitUntilReady()
        try positions.waitUntilReady()
        try table.cosines.waitUntilReady()
        try table.sines.waitUntilReady()
        overRows(x.shape[0], width: heads * width) { range in
            let (from, to) = (x[range], y[range])
            let places = positions.pointer(to: Int32.self) + range.lowerBound
            if x.dtype == .f32 {
                apus_rope_f32(
                    to.pointer(), to.rowStride, from.pointer(), from.rowStride, table.cosines.pointer(),
                    table.sines.pointer(), places, range.count, heads, width, inverse)
            } else {
                apus_rope_bf16(
                    to.pointer(), to.rowStride, from.pointer(), from.rowStride, table.cosines.pointer(),
                    table.sines.pointer(), places, range.count, heads, width, inverse)
            }
        }
    }
}
