import ApusKernels
import ApusTensor

// Shape letters: T tokens, Hq heads, N plain and R rotary elements of a query or key head, V elements of a value head, W the
// wider of N + R and V.

/// Between what the projections of latent attention yield and the heads W wide that attention takes, and back for the
/// gradients.
///
/// A query or key is [plain N | zeros | rotary R], a value [V | zeros]; the zeros only where W is wider.
struct LatentHeads {
    let shape: LatentAttention.Shape
    let table: RotaryTable
    /// (T) `i32`.
    let positions: Tensor
    let backend: any Backend

    private var tokens: Int { positions.count }
    private var width: Int { shape.headWidth }
    private var plain: Range<Int> { 0..<shape.plainWidth }

    /// A row for each head of each token.
    private func rows(_ x: Tensor) -> Tensor { x.reshaped(tokens * shape.heads, x.rowCount / shape.heads) }
    private func heads(_ rows: Tensor) -> Tensor { rows.reshaped(tokens, shape.heads, rows.shape[1]) }

    /// (T Hq, W), of which `used` elements will be written.
    private func padded(_ dtype: DType, used: Int) throws -> Tensor {
        let result = try backend.empty(Shape(tokens * shape.heads, width), dtype)
        if used < width { try backend.fill(result, with: 0) }
        return result
    }

    // MARK: Forward

    /// (T, Hq, W) from (T, Hq (N + R)), turned; in place where nothing is padded, for nobody reads unturned queries.
    func queries(_ x: Tensor) throws -> Tensor {
        let source = heads(rows(x))
        var target = source
        if width > shape.keyWidth {
            let result = try padded(x.dtype, used: shape.keyWidth)
            try backend.copy(rows(x).columns(plain), into: result.columns(plain))
            target = heads(result)
        }
        try backend.rotate(source, positions: positions, table: table, inverse: false, into: target)
        return target
    }

    /// (T, Hq, W) each, from (T, Hq (N + V)) and the key (T, R) that all heads share.
    func keysAndValues(_ x: Tensor, rotaryKey: Tensor) throws -> (keys: Tensor, values: Tensor) {
        let source = rows(x)
        let keys = try padded(x.dtype, used: shape.keyWidth)
        try backend.copy(source.columns(plain), into: keys.columns(plain))
        try backend.rotate(
            rotaryKey.reshaped(tokens, 1, shape.rotaryWidth), positions: positions, table: table, inverse: false,
            into: heads(keys))
        let values = try padded(x.dtype, used: shape.valueWidth)
        try backend.copy(
            source.columns(shape.plainWidth..<shape.plainWidth + shape.valueWidth),
            into: values.columns(0..<shape.valueWidth))
        return (heads(keys), heads(values))
    }

    /// (T, Hq V) from attention's (T, Hq, W).
    func withoutPadding(_ out: Tensor) throws -> Tensor {
        guard width > shape.valueWidth else { return out.reshaped(tokens, shape.heads * width) }
        let result = try backend.empty(Shape(tokens * shape.heads, shape.valueWidth), out.dtype)
        try backend.copy(rows(out).columns(0..<shape.valueWidth), into: result)
        return result.reshaped(tokens, shape.heads * shape.valueWidth)
    }

    // MARK: Backward

    /// (T, Hq, W) from the gradient of ``withoutPadding(_:)``'s result.
    func withPadding(_ gradient: Tensor) throws -> Tensor {
        guard width > shape.valueWidth else { return heads(rows(gradient)) }
        let result = try padded(gradient.dtype, used: shape.valueWidth)
        try backend.copy(rows(gradient), into: result.columns(0..<shape.valueWidth))
        return heads(result)
    }

    /// (T, Hq (N + R)) from that of the turned queries, which it overwrites.
    func queryGradient(_ dq: Tensor) throws -> Tensor {
        try backend.rotate(dq, positions: positions, table: table, inverse: true, into: dq)
        guard width > shape.keyWidth else { return dq.reshaped(tokens, shape.heads * width) }
        let result = try backend.empty(Shape(tokens * shape.heads, shape.keyWidth), dq.dtype)
        try backend.copy(rows(dq).columns(plain), into: result.columns(plain))
        try backend.copy(
            rows(dq).columns(width - shape.rotaryWidth..<width),
            into: result.columns(shape.plainWidth..<shape.keyWidth))
        return result.reshaped(tokens, shape.heads * shape.keyWidth)
    }

    /// (T, R): the sum over the heads that share the key, from the gradient of all keys, whose rotary part it overwrites.
    func rotaryKeyGradient(_ dk: Tensor) throws -> Tensor {
        try backend.rotate(dk, positions: positions, table: table, inverse: true, into: dk)
        let result = try backend.empty(Shape(tokens, shape.rotaryWidth), dk.dtype)
        let slots = try backend.tensor(
            (0..<tokens * shape.heads).map(Int32.init), Shape(tokens * shape.heads), .workspace)
        try backend.combineRows(
            rows(dk).columns(width - shape.rotaryWidth..<width), slotToRow: slots, weights: nil, choices: shape.heads,
            into: result, adds: false)
        return result
    }

    /// (T, Hq (N + V)).
    func keyValueGradient(_ dk: Tensor, _ dv: Tensor) throws -> Tensor {
        let result = try backend.empty(Shape(tokens * shape.heads, shape.plainWidth + shape.valueWidth), dk.dtype)
        try backend.copy(rows(dk).columns(plain), into: result.columns(plain))
        try backend.copy(
            rows(dv).columns(0..<shape.valueWidth),
            into: result.columns(shape.plainWidth..<shape.plainWidth + shape.valueWidth))
        return result.reshaped(tokens, shape.heads * (shape.plainWidth + shape.valueWidth))
    }
}
