public import ApusKernels
import ApusTensor

// Shape letters: T tokens, D model width, Hq heads, N plain and R rotary elements of a query or key head, V elements of a
// value head, W the wider of N + R and V, Lq and Lk widths of the compressed queries and of the compressed keys and values.

/// Multi-head latent attention (DeepSeek-V2 section 2.1): keys and values come from one compressed vector for each token.
///
/// 1. `x` to (T, Lk + R): the compression, normalised, and one rotary key that all heads share.
/// 2. Compression to (T, Hq (N + V)): each head's plain key and its value.
/// 3. `x` to (T, Hq (N + R)): queries, through a compression of their own or straight.
/// 4. Attention over keys of a plain and a rotary part; output projection.
///
/// Attention takes heads of one width, W, so the narrower of keys and values are padded with zeros: they add nothing to a
/// score, and what they add to the result is left out again. The cache keeps what attention reads.
public struct LatentAttention {
    /// The sizes and options of the layer.
    public struct Shape: Sendable {
        /// Hq.
        public let heads: Int
        /// N.
        public let plainWidth: Int
        /// R.
        public let rotaryWidth: Int
        /// V.
        public let valueWidth: Int
        /// Most earlier keys that a query sees, itself included; 0 for all.
        public let window: Int
        /// Factor on scores; `1 / sqrt(N + R)` unless a longer context changes it.
        public let scale: Float

        /// Sizes and options.
        public init(
            heads: Int, plainWidth: Int, rotaryWidth: Int, valueWidth: Int, window: Int = 0, scale: Float? = nil
        ) {
            self.heads = heads
            self.plainWidth = plainWidth
            self.rotaryWidth = rotaryWidth
            self.valueWidth = valueWidth
            self.window = window
            self.scale = scale ?? 1 / Float(plainWidth + rotaryWidth).squareRoot()
        }

        /// N + R.
        var keyWidth: Int { plainWidth + rotaryWidth }
        /// W.
        var headWidth: Int { max(keyWidth, valueWidth) }
    }

    /// A projection to fewer elements and the norm after it.
    public struct Compression {
        /// (T, D) to (T, Lq).
        public let projection: Linear
        /// Over Lq.
        public let norm: Norm

        /// A compression of its parts.
        public init(projection: Linear, norm: Norm) {
            self.projection = projection
            self.norm = norm
        }
    }

    /// The layer's index in the model: its key in a ``KeyValueStore``.
    public let layer: Int
    /// Sizes and options.
    public let shape: Shape
    /// Comes before ``query``; `nil` where that reads the stream.
    public let queryCompression: Compression?
    /// (T, Lq), or (T, D), to (T, Hq (N + R)): each head's plain elements, then its rotary ones.
    public let query: Linear
    /// (T, D) to (T, Lk + R).
    public let keyValueCompression: Linear
    /// Over Lk.
    public let keyValueNorm: Norm
    /// (T, Lk) to (T, Hq (N + V)): each head's plain key, then its value.
    public let keyValue: Linear
    /// (T, Hq V) to (T, D).
    public let output: Linear
    /// Angles of the positions, R wide.
    let table: RotaryTable

    public var rotary: RotaryTable? { table }

    /// A layer of its parts.
    public init(
        layer: Int, shape: Shape, queryCompression: Compression?, query: Linear, keyValueCompression: Linear,
        keyValueNorm: Norm, keyValue: Linear, output: Linear, rotary: RotaryTable
    ) {
        precondition(query.weight.weightShape[0] == shape.heads * shape.keyWidth && rotary.width == shape.rotaryWidth)
        precondition(keyValue.weight.weightShape[0] == shape.heads * (shape.plainWidth + shape.valueWidth))
        self.layer = layer
        self.shape = shape
        self.queryCompression = queryCompression
        self.query = query
        self.keyValueCompression = keyValueCompression
        self.keyValueNorm = keyValueNorm
        self.keyValue = keyValue
        self.output = output
        table = rotary
    }

    /// (T, D) to (T, D).
    public func callAsFunction(_ x: Variable, _ context: ForwardContext) throws -> Variable {
        let tape = context.tape
        var source = x
        if let queryCompression {
            source = try queryCompression.norm(queryCompression.projection(x, on: tape), on: tape)
        }
        let queries = try query(source, on: tape)
        let (latent, rotaryKey) = try split(keyValueCompression(x, on: tape), on: tape)
        let keyValues = try keyValue(keyValueNorm(latent, on: tape), on: tape)
        return try output(attend(queries, rotaryKey, keyValues, context), on: tape)
    }

    /// The compression (T, Lk) and the rotary key (T, R), both views.
    private func split(_ joined: Variable, on tape: Tape) throws -> (latent: Variable, rotaryKey: Variable) {
        let width = joined.shape[1] - shape.rotaryWidth
        let ranges = [0..<width, width..<joined.shape[1]]
        let parts = tape.record("latent_split", inputs: [joined], outputs: ranges.map(joined.tensor.columns)) { flow in
            let gradients = [flow.output(0), flow.output(1)]
            guard gradients.contains(where: { $0 != nil }) else { return }
            let total = try flow.backend.empty(joined.shape, joined.dtype)
            if gradients.contains(where: { $0 == nil }) { try flow.backend.fill(total, with: 0) }
            for (gradient, range) in zip(gradients, ranges) {
                if let gradient { try flow.backend.copy(gradient, into: total.columns(range)) }
            }
            try flow.accumulate(total, into: joined)
        }
        return (parts[0], parts[1])
    }

    // MARK: Attention

    private func attend(
        _ queries: Variable, _ rotaryKey: Variable, _ keyValues: Variable, _ context: ForwardContext
    ) throws -> Variable {
        let backend = context.tape.backend
        let layout = context.layout
        let positions = layout.positions
        let tokens = queries.shape[0]
        let heads = LatentHeads(shape: shape, table: table, positions: positions, backend: backend)
        let q = try heads.queries(queries.tensor)
        let (keys, values) = try heads.keysAndValues(keyValues.tensor, rotaryKey: rotaryKey.tensor)
        let view: KVView
        if let store = context.keyValues {
            view = try store.append(layer: layer, keys: keys, values: values)
        } else {
            view = KVView(
                keys: keys, values: values, layout: .contiguous(cumulativeLengths: layout.cumulativeLengths))
        }
        let mask = AttentionMask(isCausal: true, window: shape.window, firstKey: layout.firstKey)
        let out = try backend.empty(q.shape, q.dtype)
        let logSumExp =
            context.tape.isRecording ? try backend.empty(ApusTensor.Shape(tokens, shape.heads), .f32) : nil
        try backend.attention(
            q, cumulativeLengths: layout.cumulativeLengths, kv: view, mask: mask, scale: shape.scale, into: out,
            logSumExp: logSumExp)
        let result = try heads.withoutPadding(out)
        return context.tape.record("latent_attention", inputs: [queries, rotaryKey, keyValues], output: result) {
            flow in
            guard let gradient = flow.output(), let logSumExp else { return }
            let heads = LatentHeads(shape: shape, table: table, positions: positions, backend: flow.backend)
            let (dq, dk, dv) = (
                try flow.backend.empty(q.shape, q.dtype), try flow.backend.empty(q.shape, q.dtype),
                try flow.backend.empty(q.shape, q.dtype)
            )
            try flow.backend.attentionBackward(
                heads.withPadding(gradient), q: q, cumulativeLengths: layout.cumulativeLengths, kv: view, mask: mask,
                scale: shape.scale, out: out, logSumExp: logSumExp, dq: dq, dk: dk, dv: dv)
            try flow.accumulate(heads.queryGradient(dq), into: queries)
            // The keys' gradient is turned back where it is, which the shared key's sum needs and the plain part is not in.
            try flow.accumulate(heads.rotaryKeyGradient(dk), into: rotaryKey)
            try flow.accumulate(heads.keyValueGradient(dk, dv), into: keyValues)
        }
    }
}
