public import ApusKernels
import ApusTensor

// Shape letters: T tokens, D model width, Hq query heads, Hk key heads, H head width, P = (Hq + 2 Hk) * H.

/// Self-attention with grouped queries: one fused projection, optional norm of queries and keys, rotary
/// positions, attention, output projection.
///
/// Queries, keys and values stay slices of the fused projection's output; nothing is copied between the projections and
/// attention.
public struct SelfAttention {
    /// The sizes and options of the layer.
    public struct Shape: Sendable {
        /// Hq.
        public let heads: Int
        /// Hk.
        public let keyValueHeads: Int
        /// H.
        public let headWidth: Int
        /// Most earlier keys that a query sees, itself included; 0 for all.
        public let window: Int
        /// Bound on the absolute value of projections, or `nil`.
        public let clip: Float?
        /// Whether a query sees the keys before it and its own only; otherwise all of its sequence.
        public let isCausal: Bool

        /// Sizes and options.
        public init(
            heads: Int, keyValueHeads: Int, headWidth: Int, window: Int = 0, clip: Float? = nil, isCausal: Bool = true
        ) {
            self.heads = heads
            self.keyValueHeads = keyValueHeads
            self.headWidth = headWidth
            self.window = window
            self.clip = clip
            self.isCausal = isCausal
        }

        var queryWidth: Int { heads * headWidth }
        var keyWidth: Int { keyValueHeads * headWidth }
        var fusedWidth: Int { queryWidth + 2 * keyWidth }
    }

    /// RMSNorm weights of queries and keys.
    public struct QueryKeyNorm {
        /// (H), or (Hq * H) over the whole projection.
        public let query: any Weight
        /// (H), or (Hk * H) over the whole projection.
        public let key: any Weight
        /// Added under the root.
        public let epsilon: Float
        /// Computes norms over projections of which only some heads are here; `nil` when a row's columns all are.
        public let divided: (any DividedRowNorm)?

        /// Norms over the given weights.
        public init(query: any Weight, key: any Weight, epsilon: Float, divided: (any DividedRowNorm)? = nil) {
            self.query = query
            self.key = key
            self.epsilon = epsilon
            self.divided = divided
        }
    }

    /// The layer's index in the model: its key in a ``KeyValueStore``.
    public let layer: Int
    /// Sizes and options.
    public let shape: Shape
    /// (T, D) to (T, P): queries, keys, values.
    public let projection: Linear
    /// (T, Hq * H) to (T, D).
    public let output: Linear
    /// Norms of queries and keys, or `nil`.
    public let queryKeyNorm: QueryKeyNorm?
    /// Angles of the positions, or `nil` when positions are learned.
    public let rotary: RotaryTable?

    /// A layer of its parts.
    public init(
        layer: Int, shape: Shape, projection: Linear, output: Linear, queryKeyNorm: QueryKeyNorm?, rotary: RotaryTable?
    ) {
        precondition(projection.weight.weightShape[0] == shape.fusedWidth)
        self.layer = layer
        self.shape = shape
        self.projection = projection
        self.output = output
        self.queryKeyNorm = queryKeyNorm
        self.rotary = rotary
    }

    /// (T, D) to (T, D).
    public func callAsFunction(_ x: Variable, _ context: ForwardContext) throws -> Variable {
        let tape = context.tape
        var fused = try projection(x, on: tape)
        if let norm = queryKeyNorm, let divided = norm.divided {
            fused = try normalize(fused, norm, dividedBy: divided, on: tape)
        } else if let queryKeyNorm {
            fused = try normalize(fused, queryKeyNorm, on: tape)
        }
        if let clip = shape.clip { fused = try clamp(fused, to: clip, on: tape) }
        if let rotary { fused = try rotate(fused, rotary, context) }
        let mixed = try attend(fused, context)
        return try output(mixed, on: tape)
    }

    private func queries(_ fused: Tensor) -> Tensor { heads(fused, 0, shape.heads) }
    private func keys(_ fused: Tensor) -> Tensor { heads(fused, shape.queryWidth, shape.keyValueHeads) }
    private func values(_ fused: Tensor) -> Tensor {
        heads(fused, shape.queryWidth + shape.keyWidth, shape.keyValueHeads)
    }

    private func heads(_ fused: Tensor, _ first: Int, _ count: Int) -> Tensor {
        fused.columns(first..<first + count * shape.headWidth).reshaped(fused.shape[0], count, shape.headWidth)
    }

    /// The rows that a query-key norm works on: heads, or the whole projection when its weight is that wide.
    private func normRows(_ heads: Tensor, _ weight: any Weight) -> Tensor {
        weight.weightShape.count == shape.headWidth && heads.shape[1] > 1
            ? heads : heads.reshaped(heads.shape[0], heads.shape[1] * shape.headWidth)
    }

    private func normalize(_ fused: Variable, _ norm: QueryKeyNorm, on tape: Tape) throws -> Variable {
        let backend = tape.backend
        let source = fused.tensor
        let result = try backend.empty(source.shape, source.dtype)
        let parts = [(queries, norm.query), (keys, norm.key)] as [((Tensor) -> Tensor, any Weight)]
        var statistics: [Tensor] = []
        for (part, weight) in parts {
            let (from, to) = (normRows(part(source), weight), normRows(part(result), weight))
            let rstd = try backend.empty(ApusTensor.Shape(from.count / from.shape[-1]), .f32)
            try weight.withWeights(on: backend.stream) {
                try backend.rmsNorm(from, weight: $0, epsilon: norm.epsilon, into: to, rstd: rstd)
            }
            statistics.append(rstd)
        }
        try backend.copy(values(source), into: values(result))
        return tape.record("query_key_norm", inputs: [fused], output: result) { flow in
            guard let gradient = flow.takeOutput() else { return }
            let total = try flow.backend.exclusive(gradient)
            for ((part, weight), rstd) in zip(parts, statistics) {
                let rows = normRows(part(total), weight)
                try weight.withWeights(on: flow.backend.stream) {
                    try flow.backend.rmsNormBackward(
                        rows, x: normRows(part(source), weight), weight: $0, rstd: rstd, into: rows, adds: false,
                        weightGradient: try weight.gradient())
                }
            }
            try flow.accumulate(total, into: fused)
        }
    }

    private func normalize(
        _ fused: Variable, _ norm: QueryKeyNorm, dividedBy divided: any DividedRowNorm, on tape: Tape
    ) throws -> Variable {
        let backend = tape.backend
        let source = fused.tensor
        let result = try backend.empty(source.shape, source.dtype)
        func rows(_ heads: Tensor) -> Tensor { heads.reshaped(heads.shape[0], heads.shape[1] * shape.headWidth) }
        let rstd = try norm.query.withWeights(on: backend.stream) { query in
            try norm.key.withWeights(on: backend.stream) { key in
                try divided.forward(
                    [
                        (x: rows(queries(source)), weight: query, y: rows(queries(result))),
                        (x: rows(keys(source)), weight: key, y: rows(keys(result))),
                    ], epsilon: norm.epsilon, on: tape)
            }
        }
        try backend.copy(values(source), into: values(result))
        return tape.record("query_key_norm", inputs: [fused], output: result) { flow in
            guard let gradient = flow.takeOutput() else { return }
            let backend = flow.backend
            let total = try backend.exclusive(gradient)
            try norm.query.withWeights(on: backend.stream) { query in
                try norm.key.withWeights(on: backend.stream) { key in
                    try divided.backward(
                        [
                            (
                                dy: rows(queries(total)), x: rows(queries(source)), weight: query, rstd: rstd[0],
                                weightGradient: try norm.query.gradient()
                            ),
                            (
                                dy: rows(keys(total)), x: rows(keys(source)), weight: key, rstd: rstd[1],
                                weightGradient: try norm.key.gradient()
                            ),
                        ], epsilon: norm.epsilon, backend)
                }
            }
            try flow.accumulate(total, into: fused)
        }
    }

    private func clamp(_ fused: Variable, to limit: Float, on tape: Tape) throws -> Variable {
        let result = try tape.backend.empty(fused.shape, fused.dtype)
        try tape.backend.clamp(fused.tensor, limit: limit, into: result)
        return tape.record("clamp", inputs: [fused], output: result) { flow in
            guard let gradient = flow.takeOutput() else { return }
            let total = try flow.backend.exclusive(gradient)
            try flow.backend.clampBackward(total, x: fused.tensor, limit: limit, into: total)
            try flow.accumulate(total, into: fused)
        }
    }

    /// Rotates queries and keys where they are: nothing before needs them unrotated.
    private func rotate(_ fused: Variable, _ table: RotaryTable, _ context: ForwardContext) throws -> Variable {
        let positions = context.layout.positions
        for part in [queries(fused.tensor), keys(fused.tensor)] {
            try context.tape.backend.rotate(part, positions: positions, table: table, inverse: false, into: part)
        }
        return context.tape.record("rotary", inputs: [fused], output: fused.tensor) { flow in
            guard let gradient = flow.takeOutput() else { return }
            let total = try flow.backend.exclusive(gradient)
            for part in [queries(total), keys(total)] {
                try flow.backend.rotate(part, positions: positions, table: table, inverse: true, into: part)
            }
            try flow.accumulate(total, into: fused)
        }
    }

    private func attend(_ fused: Variable, _ context: ForwardContext) throws -> Variable {
        let backend = context.tape.backend
        let layout = context.layout
        let source = fused.tensor
        let view: KVView
        if let store = context.keyValues {
            view = try store.append(layer: layer, keys: keys(source), values: values(source))
        } else {
            view = KVView(
                keys: keys(source), values: values(source),
                layout: .contiguous(cumulativeLengths: layout.cumulativeLengths))
        }
        let mask = AttentionMask(isCausal: shape.isCausal, window: shape.window, firstKey: layout.firstKey)
        let scale = 1 / Float(shape.headWidth).squareRoot()
        let result = try backend.empty(ApusTensor.Shape(source.shape[0], shape.queryWidth), source.dtype)
        let out = result.reshaped(source.shape[0], shape.heads, shape.headWidth)
        let logSumExp =
            context.tape.isRecording ? try backend.empty(ApusTensor.Shape(source.shape[0], shape.heads), .f32) : nil
        try backend.attention(
            queries(source), cumulativeLengths: layout.cumulativeLengths, kv: view, mask: mask, scale: scale, into: out,
            logSumExp: logSumExp)
        return context.tape.record("attention", inputs: [fused], output: result) { flow in
            guard let gradient = flow.output(), let logSumExp else { return }
            let total = try flow.backend.empty(source.shape, source.dtype)
            try flow.backend.attentionBackward(
                gradient.reshaped(out.shape[0], out.shape[1], out.shape[2]), q: queries(source),
                cumulativeLengths: layout.cumulativeLengths, kv: view, mask: mask, scale: scale, out: out,
                logSumExp: logSumExp, dq: queries(total), dk: keys(total), dv: values(total))
            try flow.accumulate(total, into: fused)
        }
    }
}
