public import ApusKernels
public import ApusTensor

// Shape letters: T tokens, D model width, C channels, W taps.

/// A gated short convolution in the place of attention: a projection to two gates and what is mixed, a causal
/// convolution of W taps for each channel between the gates, an output projection (MAD, Poli et al. 2024, section 3.1).
///
/// What it needs of earlier tokens is their W - 1 last projected rows, whatever the length of the sequence.
public struct ShortConvolution {
    /// The layer's index in the model: its key in a ``KeyValueStore``.
    public let layer: Int
    /// (T, D) to (T, 3 C): outer gate, inner gate, value.
    public let projection: Linear
    /// (W, C): what came j tokens before is weighed by row j.
    public let taps: any Weight
    /// (T, C) to (T, D).
    public let output: Linear

    /// A layer of its parts.
    public init(layer: Int, projection: Linear, taps: any Weight, output: Linear) {
        precondition(projection.weight.weightShape[0] == 3 * taps.weightShape[1])
        self.layer = layer
        self.projection = projection
        self.taps = taps
        self.output = output
    }

    /// None: the taps tell places apart.
    public var rotary: RotaryTable? { nil }

    /// (T, D) to (T, D).
    public func callAsFunction(_ x: Variable, _ context: ForwardContext) throws -> Variable {
        let projected = try projection(x, on: context.tape)
        return try output(mixed(projected, context), on: context.tape)
    }

    private func mixed(_ projected: Variable, _ context: ForwardContext) throws -> Variable {
        if let store = context.keyValues { return .constant(try continued(projected.tensor, store, context)) }
        let (positions, source) = (context.layout.positions, projected.tensor)
        let result = try convolved(source, positions, context.tape.backend)
        return context.tape.record("short_convolution", inputs: [projected], output: result) { flow in
            guard let dy = flow.output() else { return }
            let backend = flow.backend
            let dx = try backend.empty(source.shape, source.dtype)
            try taps.withWeights(on: backend.stream) {
                try backend.shortConvolutionBackward(
                    dy, x: source, taps: $0, positions: positions, into: dx, tapGradient: try taps.gradient())
            }
            try flow.accumulate(dx, into: projected)
        }
    }

    /// The same for tokens that continue sequences: their earlier rows come before them, and give no result.
    private func continued(
        _ source: Tensor, _ store: any KeyValueStore, _ context: ForwardContext
    ) throws -> Tensor {
        precondition(!context.tape.isRecording, "what a store keeps has no gradient")
        let backend = context.tape.backend
        let extended = try store.extend(layer: layer, rows: source, by: taps.weightShape[0] - 1)
        let all = try convolved(extended.rows, extended.positions, backend)
        let result = try backend.empty(Shape(source.shape[0], all.shape[1]), all.dtype)
        try backend.gatherRows(all, index: extended.places, scale: nil, into: result)
        return result
    }

    private func convolved(_ rows: Tensor, _ positions: Tensor, _ backend: any Backend) throws -> Tensor {
        let result = try backend.empty(Shape(rows.shape[0], taps.weightShape[1]), rows.dtype)
        try taps.withWeights(on: backend.stream) {
            try backend.shortConvolution(rows, taps: $0, positions: positions, into: result)
        }
        return result
    }
}

/// New rows of sequences behind the last ones that came before them.
public struct ExtendedRows {
    /// (N, width): of each sequence in turn, what is kept of it, then what is new.
    public let rows: Tensor
    /// (N) `i32`: each new row's place in its sequence; of kept rows, any.
    public let positions: Tensor
    /// (T) `i32`: where the new rows are.
    public let places: Tensor

    /// Rows, their positions, and which of them are new.
    public init(rows: Tensor, positions: Tensor, places: Tensor) {
        self.rows = rows
        self.positions = positions
        self.places = places
    }
}
