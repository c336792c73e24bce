import ApusExperts
import ApusKernels
import ApusNN
import ApusTensor
import Glibc

// Shape letters: T tokens, D model width, F expert width, E experts, K choices per token.

/// One layer with its input and the gradient of its output; `pass` is what is timed.
///
/// Layers of one shape have the same weights and route alike, whatever their bank.
struct MoELayerBench {
    private let shape: LayerShape
    private let layer: MoELayer
    private let store: ParameterStore
    private let layout: TokenLayout
    private let x: Tensor
    private let dy: Tensor
    let backend: any Backend

    init(
        _ shape: LayerShape, bank: BankVariant, policy: TokenPolicy, precision: Precision, _ backend: any Backend
    ) throws {
        self.shape = shape
        self.backend = backend
        (layer, store) = try MoELayerBench.layer(shape, bank, policy, precision, backend)
        try store.initialize(seed: 1, backend: backend)
        (x, layout) = try MoELayerBench.tokens(shape, precision.modelType, backend)
        dy = try backend.random(x.shape, precision.modelType, seed: 3)
        try MoELayerBench.favour(store.parameters[0], shape, backend)
    }

    /// Where a pass began, changed over to its backward, and ended; and the memory that it took.
    struct Pass {
        let begin: any TimeMark
        let middle: any TimeMark
        let end: any TimeMark
        /// Bytes of tensors at the most.
        let peakBytes: Int
        /// Of these, what was not there before, as parameters, input and output gradient were, besides gradients of
        /// parameters.
        let extraBytes: Int
    }

    /// Router, experts, and the gradients of both, which are written to memory of their own, as in training. Waits for
    /// nothing.
    func pass() throws -> Pass {
        defer { store.releaseGradients() }
        backend.allocator.resetPeaks()
        let held = backend.allocator.statistics.totalLive
        let tape = Tape(backend: backend)
        let begin = try backend.timeMark()
        let output = try layer(tape.leaf(x), context(tape))
        let middle = try backend.timeMark()
        let forwardPeak = backend.allocator.statistics.totalPeak
        try tape.addRoot(output.hidden, seed: dy)
        try tape.backward()
        let end = try backend.timeMark()
        let (peak, gradients) = (
            backend.allocator.statistics.totalPeak, backend.allocator.statistics[.gradients]
        )
        // Backward is at its peak when the gradients are there.
        return Pass(
            begin: begin, middle: middle, end: end, peakBytes: peak,
            extraBytes: max(forwardPeak, peak - gradients) - held)
    }

    /// Where the tokens go.
    struct Loads {
        /// Rows that each expert computes, padding included.
        let rows: [Int]
        /// Share of the choices that find no room.
        let dropped: Double

        /// Rows of the fullest expert over the mean.
        var peakToMean: Double { Double((rows.max() ?? 0) * rows.count) / Double(max(rows.reduce(0, +), 1)) }
    }

    /// Routes once, and reads back what came out.
    func loads() throws -> Loads {
        let tape = Tape(backend: backend, isRecording: false)
        let decision = try layer.router.route(tape.leaf(x), layer: 0, context(tape)).decision
        let kept = try backend.array(decision.kept, of: Int32.self).count { $0 >= 0 }
        return Loads(
            rows: try backend.array(decision.permutation.counts, of: Int32.self).map(Int.init),
            dropped: 1 - Double(kept) / Double(shape.rows))
    }

    /// A step's context: capacity is training's.
    private func context(_ tape: Tape) -> MoEContext {
        MoEContext(forward: ForwardContext(tape: tape, layout: layout, trainingStep: 1, seed: 1))
    }

    private static func layer(
        _ shape: LayerShape, _ bank: BankVariant, _ policy: TokenPolicy, _ precision: Precision,
        _ backend: any Backend
    ) throws -> (MoELayer, ParameterStore) {
        let router = gate(shape)
        let spread = Initializer.normal(deviation: 0.02)
        var inputs: [Parameter] = []
        for expert in 0..<shape.experts {
            for part in 0..<shape.activation.inputsPerOutput {
                inputs.append(
                    Parameter(
                        "in.\(expert).\(part)", Shape(shape.expertWidth, shape.width), role: .expert,
                        initializer: spread))
            }
        }
        let outputs = (0..<shape.experts).map {
            Parameter("out.\($0)", Shape(shape.width, shape.expertWidth), role: .expert, initializer: spread)
        }
        let store = try ParameterStore(
            [router] + inputs + outputs, backend: backend, precision: precision, isTrained: true)
        let matrices = ExpertMatrices(inputs: inputs, outputs: outputs, activation: shape.activation)
        let experts: any ExpertBank =
            bank.kind == .blockSparse
            ? BlockSparseBank(matrices, blockSize: shape.blockSize) : GroupedBank(matrices)
        let layer = MoELayer(
            layer: 0,
            router: TopKRouter(
                weight: router, selectionBias: nil, choices: shape.choices,
                configuration: RouterConfiguration(renormalizes: true), policy: policy,
                isPadded: bank.kind == .padded, losses: RouterLosses()),
            bank: experts)
        return (layer, store)
    }
}

// MARK: What is routed, which other benchmarks take too

extension MoELayerBench {
    /// (T, D) of random numbers as one sequence, the last column by popularity: the router's weight there is a bias on
    /// what a token chooses.
    static func tokens(
        _ shape: LayerShape, _ dtype: DType, _ backend: any Backend
    ) throws -> (x: Tensor, layout: TokenLayout) {
        let values = try backend.random(Shape(shape.tokens, shape.width), .f32, seed: 2)
        let last = try backend.tensor(shape.popularity.feature(shape.tokens), Shape(shape.tokens, 1))
        try backend.copy(last, into: values.columns(shape.width - 1..<shape.width))
        let layout = try TokenLayout.sequences([shape.tokens], backend: backend)
        guard dtype != .f32 else { return (values, layout) }
        let halves = try backend.empty(values.shape, dtype, .activations)
        try backend.convert(values, into: halves)
        return (halves, layout)
    }

    /// The router's weight (E, D), whose logits of random tokens have a deviation of 1.28.
    static func gate(_ shape: LayerShape) -> Parameter {
        Parameter(
            "gate", Shape(shape.experts, shape.width), role: .router,
            initializer: .normal(deviation: 1.28 / Float(shape.width).squareRoot()))
    }

    /// Gives the weight the bias that makes experts popular.
    static func favour(_ weight: Parameter, _ shape: LayerShape, _ backend: any Backend) throws {
        try weight.withWeights(on: backend.stream) {
            let bias = try backend.tensor(shape.popularity.bias(shape.experts), Shape(shape.experts, 1))
            try backend.copy(bias, into: $0.columns(shape.width - 1..<shape.width))
        }
    }
}

extension ExpertPopularity {
    /// More than any logit of a random token.
    private static let certain: Float = 64

    /// (T) what tokens bring to the bias: all the same, and with `half` every second token the contrary.
    fileprivate func feature(_ tokens: Int) -> [Float] { (0..<tokens).map { self == .half && $0 % 2 == 1 ? -1 : 1 } }

    /// (E) the logits of a feature of 1. With `zipf` what top-k then picks falls about as Zipf's law says; with `half` the
    /// first expert is chosen by every token that has the feature, and by no other.
    fileprivate func bias(_ experts: Int) -> [Float] {
        (0..<experts).map { expert in
            switch self {
            case .balanced: 0
            case .zipf: -Float(log(Double(expert + 1)))
            case .half: expert == 0 ? ExpertPopularity.certain : 0
            }
        }
    }
}
