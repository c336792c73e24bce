public import ApusTensor
import CApusKernels

// Shape letters: T tokens, H heads, dh head width, r elements of a head that are turned.

/// Which elements of a head are turned together.
public enum RotaryPairing: String, Sendable, CaseIterable {
    /// Element `i` with `i + r / 2` (most Hugging Face models).
    case halves
    /// Element `2 i` with `2 i + 1` (Su et al.; DeepSeek).
    case neighbours
}

/// Cosines and sines of every position's angles, (positions, r / 2) each, `f32`.
public struct RotaryTable: Sendable {
    /// Cosines.
    public let cosines: Tensor
    /// Sines.
    public let sines: Tensor
    /// Which elements are turned together.
    public let pairing: RotaryPairing

    /// A table of the given tensors.
    public init(cosines: Tensor, sines: Tensor, pairing: RotaryPairing = .halves) {
        self.cosines = cosines
        self.sines = sines
        self.pairing = pairing
    }

    /// Positions that the table covers.
    public var positionCount: Int { cosines.shape[0] }
    /// r.
    public var width: Int { 2 * cosines.shape[1] }

    /// The same angles for other pairs.
    public func pairing(_ pairing: RotaryPairing) -> RotaryTable {
        RotaryTable(cosines: cosines, sines: sines, pairing: pairing)
    }
}

/// Rotary position embedding (Su et al., RoFormer, section 3.2).
public protocol RotaryOp {
    /// The table for heads `headWidth` wide with base `theta`, elements paired by halves.
    func rotaryTable(positions: Int, headWidth: Int, theta: Double) throws -> RotaryTable
    /// Turns the last r elements of each head of `x` (T, H, dh) by the angles of `positions` (T) `i32`, r being the
    /// table's width, and writes them where the last r of `y` (T, H, its dh) are; nothing else of `y` is written. `x` may
    /// have one head, which every head of `y` then gets. `inverse` negates the angles, which is the gradient.
    ///
    /// `y` may be `x`. Positions must be below the table's count.
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
        let (heads, width) = (y.shape[1], table.width)
        table.checkHeads(x, y, positions)
        try x.waitUntilReady()
        try positions.waitUntilReady()
        try table.cosines.waitUntilReady()
        try table.sines.waitUntilReady()
        let xHeadStride = x.shape[1] == 1 ? 0 : x.shape[2]
        let (skippedX, skippedY) = (x.shape[2] - width, y.shape[2] - width)
        let isNeighbours = table.pairing == .neighbours
        overRows(x.shape[0], width: heads * width) { range in
            let (from, to) = (x[range], y[range])
            let places = positions.pointer(to: Int32.self) + range.lowerBound
            if x.dtype == .f32 {
                apus_rope_f32(
                    to.pointer(to: Float.self) + skippedY, to.rowStride, y.shape[2],
                    from.pointer(to: Float.self) + skippedX, from.rowStride, xHeadStride, table.cosines.pointer(),
                    table.sines.pointer(), places, range.count, heads, width, isNeighbours, inverse)
            } else {
                apus_rope_bf16(
                    to.pointer(to: UInt16.self) + skippedY, to.rowStride, y.shape[2],
                    from.pointer(to: UInt16.self) + skippedX, from.rowStride, xHeadStride, table.cosines.pointer(),
                    table.sines.pointer(), places, range.count, heads, width, isNeighbours, inverse)
            }
        }
    }
}

extension RotaryTable {
    /// Traps unless heads (T, H, dh) and `positions` (T) fit each other and the table.
    package func checkHeads(_ x: Tensor, _ y: Tensor, _ positions: Tensor) {
        precondition(
            x.shape[0] == y.shape[0] && positions.count == x.shape[0] && x.dtype == y.dtype
                && (x.shape[1] == y.shape[1] || x.shape[1] == 1) && x.shape[2] >= width && y.shape[2] >= width,
            "heads \(x.shape) cannot be turned into \(y.shape), \(width) elements of each")
    }
}
