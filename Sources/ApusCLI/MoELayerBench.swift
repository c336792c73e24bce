import ApusExperts
import ApusKernels
import ApusNN
import ApusTensor
import Glibc

// Shape letters: T tokens, D model width, F expert width, E experts, K choices per token.

/// The sizes of a layer to measure.
struct MoELayerShape {
    let tokens: Int
    let width: Int
    let expertWidth: Int
    let experts: Int
    let choices: Int
    let activation: Activation
    /// Whether the most popular expert gets many times the tokens of the least popular one.
    let isSkewed: Bool
    let blockSize: Int
}

/// One layer with its input and the gradient of its output; `pass` is what is timed.
///
/// Layers of one shape have the same weights and route alike, whatever their bank.
struct MoELayerBench {
    private let shape: MoELayerShape
    private let backend: CPUBackend
    private let layer: MoELayer
    private let x: Tensor
    private let dy: Tensor

    init(
        _ shape: MoELayerShape, bank: BankVariant, policy: TokenPolicy, precision: Precision, _ backend: CPUBackend
    ) throws {
        self.shape = shape
        self.backend = backend
        let (layer, store) = try MoELayerBench.layer(shape, bank, policy, precision, backend)
        self.layer = layer
        try store.initialize(seed: 1, backend: backend)
        let dtype = precision == .f32 ? DType.f32 : .bf16
        x = try MoELayerBench.input(shape, dtype, backend)
        dy = try backend.empty(x.shape, dtype, .activations)
        try backend.fillRandom(
            dy, .normal(mean: 0, deviation: 1), stream: RandomStream(seed: 3, purpose: .initialization), first: 0)
        try store.parameters[0].withWeights(on: backend.stream) { weight in
            // What top-k then picks falls about as Zipf's law says: expert e is favoured by -log(e + 1).
            for expert in 0..<shape.experts {
                weight.pointer(to: Float.self)[(expert + 1) * shape.width - 1] =
                    shape.isSkewed ? -Float(log(Double(expert + 1))) : 0
            }
        }
    }

    /// What one pass took and where the tokens went.
    struct Pass {
        let forward: Double
        let backward: Double
        /// Rows that each expert computes, padding included.
        let rows: [Int]
        /// Share of the choices that found no room.
        let dropped: Double
    }

    /// Router, experts, and the gradients of both.
    func pass() throws -> Pass {
        let tape = Tape(backend: backend)
        let layout = try TokenLayout.sequences([shape.tokens], backend: backend)
        // A step's context: capacity is training's.
        let context = MoEContext(forward: ForwardContext(tape: tape, layout: layout, trainingStep: 1, seed: 1))
        let (forward, output) = try timed { try layer(tape.leaf(x), context) }
        let decision = output.routing.decision
        let kept = decision.kept.array(of: Int32.self).count { $0 >= 0 }
        try tape.addRoot(output.hidden, seed: dy)
        let backward = try timed { try tape.backward() }.seconds
        return Pass(
            forward: forward, backward: backward,
            rows: decision.permutation.counts.array(of: Int32.self).map(Int.init),
            dropped: 1 - Double(kept) / Double(shape.tokens * shape.choices))
    }

    private static func layer(
        _ shape: MoELayerShape, _ bank: BankVariant, _ policy: TokenPolicy, _ precision: Precision,
        _ backend: CPUBackend
    ) throws -> (MoELayer, ParameterStore) {
        let router = Parameter(
            "gate", Shape(shape.experts, shape.width), role: .router,
            initializer: .normal(deviation: 1.28 / Float(shape.width).squareRoot()))
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

    /// (T, D) of random numbers, the last column 1: the router's weight there is a bias that every token feels.
    private static func input(_ shape: MoELayerShape, _ dtype: DType, _ backend: CPUBackend) throws -> Tensor {
        let values = try backend.empty(Shape(shape.tokens, shape.width), .f32, .activations)
        try backend.fillRandom(
            values, .normal(mean: 0, deviation: 1), stream: RandomStream(seed: 2, purpose: .initialization), first: 0)
        for token in 0..<shape.tokens { values.pointer(to: Float.self)[(token + 1) * shape.width - 1] = 1 }
        guard dtype != .f32 else { return values }
        let halves = try backend.empty(values.shape, dtype, .activations)
        try backend.convert(values, into: halves)
        return halves
    }
}
