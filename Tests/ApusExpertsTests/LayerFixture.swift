import ApusExperts
import ApusKernels
import ApusNN
import ApusTensor
import ApusTestSupport

// Shape letters: T tokens, D model width, F expert width, E experts, K choices per token.

/// A MoE layer over parameters of its own, as a configuration describes it.
struct LayerFixture {
    let backend: CPUBackend
    let configuration: MoEConfiguration
    let width: Int
    let router: TopKRouter
    let bank: any ExpertBank
    let layer: MoELayer
    let store: ParameterStore

    init(
        _ configuration: MoEConfiguration, width: Int, chunks: Int = 1, index: Int = 0, precision: Precision = .f32,
        seed: UInt64 = 1, backend: CPUBackend = CPUBackend(threadCount: 2)
    ) throws {
        var parameters = ParameterList(width: width, index: index)
        let configuration = configuration
        let cosine = configuration.router.cosine.map {
            CosineProjection(
                projection: parameters.declare("projection", $0.width, width, role: .router),
                temperature: parameters.declare(
                    "temperature", 1, role: .router, initializer: .constant($0.initialParameter)), floor: $0.floor)
        }
        let nodes = configuration.router.nodes.map {
            NodeGate(weight: parameters.declare("nodes", $0, width, role: .router))
        }
        router = TopKRouter(
            weight: parameters.declare(
                "gate", configuration.experts, configuration.router.cosine?.width ?? width, role: .router),
            cosine: cosine, nodes: nodes,
            selectionBias: configuration.router.biasRate > 0
                ? parameters.declare("bias", configuration.experts, role: .router, initializer: .constant(0)) : nil,
            choices: configuration.choices, configuration: configuration.router, policy: configuration.policy,
            isPadded: configuration.bank == .padded, losses: configuration.losses)
        bank = parameters.bank(configuration)
        let shared =
            configuration.sharedWidth > 0
            ? parameters.dense("shared", configuration.sharedWidth, configuration.activation) : nil
        let residual =
            configuration.isResidual
            ? ResidualExpert(
                expert: parameters.dense("residual", configuration.width, configuration.activation),
                coefficient: parameters.declare("coefficient", 2, width, role: .router),
                bias: parameters.declare("coefficient.bias", 2, role: .router, initializer: .normal(deviation: 0.3)))
            : nil
        layer = MoELayer(
            layer: index, router: router, bank: bank, shared: shared, residual: residual, chunks: chunks,
            dropout: configuration.dropout)
        store = try ParameterStore(parameters.all, backend: backend, precision: precision, isTrained: true)
        try store.initialize(seed: seed, backend: backend)
        self.backend = backend
        self.configuration = configuration
        self.width = width
    }

    /// (T, D) draws.
    func input(_ tokens: Int, seed: UInt64 = 7) throws -> Tensor {
        try backend.allocator.random(Shape(tokens, width), store.precision.modelType, seed: seed)
    }

    /// Tokens in routing groups of the given lengths.
    func layout(_ lengths: [Int], first: Int = 0, mask: [UInt8]? = nil) throws -> TokenLayout {
        try TokenLayout.sequences(
            lengths, firstGlobalToken: first,
            tokenMask: try mask.map { try backend.allocator.tensor($0, Shape($0.count)) }, backend: backend)
    }

    /// The weights of a parameter in double precision.
    func weights(_ name: String) throws -> [Double] {
        guard let parameter = store["\(layer.layer).\(name)"] else { preconditionFailure("no parameter \(name)") }
        return try parameter.withWeights(on: backend.stream) { $0.doubles }
    }

    /// The accumulated gradient of a parameter.
    func gradient(_ name: String) throws -> [Float] {
        guard let gradient = try store["\(layer.layer).\(name)"]?.gradient() else {
            preconditionFailure("no parameter \(name)")
        }
        return gradient.floats()
    }

    /// Overwrites a parameter.
    func assign(_ name: String, _ values: [Float]) throws {
        try store["\(layer.layer).\(name)"]?.withWeights(on: backend.stream) { $0.assign(values) }
    }

    /// Sets all gradients to zero.
    func clearGradients() { store.releaseGradients() }
}

/// Parameters in the order of declaration, named by layer.
private struct ParameterList {
    let width: Int
    let index: Int
    private(set) var all: [Parameter] = []

    init(width: Int, index: Int) {
        self.width = width
        self.index = index
    }

    mutating func declare(
        _ name: String, _ extents: Int..., role: ParameterRole = .dense, expert: Int? = nil,
        initializer: Initializer? = nil
    ) -> Parameter {
        let parameter = Parameter(
            "\(index).\(name)", Shape(extents), role: role, layer: index, expert: expert,
            initializer: initializer ?? .normal(deviation: 1.5 / Float(extents[extents.count - 1]).squareRoot()))
        all.append(parameter)
        return parameter
    }

    mutating func bank(_ configuration: MoEConfiguration) -> any ExpertBank {
        let names = configuration.activation.inputsPerOutput == 2 ? ["gate", "up"] : ["up"]
        var inputs: [Parameter] = []
        for expert in 0..<configuration.experts {
            for name in names {
                inputs.append(declare("\(expert).\(name)", configuration.width, width, role: .expert, expert: expert))
            }
        }
        let outputs = (0..<configuration.experts).map {
            declare("\($0).down", width, configuration.width, role: .expert, expert: $0)
        }
        let matrices = ExpertMatrices(inputs: inputs, outputs: outputs, activation: configuration.activation)
        guard configuration.bank == .blockSparse else { return GroupedBank(matrices) }
        // Blocks as large as the experts are wide where the configured ones do not fit.
        let (hidden, block) = (configuration.width, configuration.blockSize)
        return BlockSparseBank(matrices, blockSize: hidden % block == 0 ? block : hidden)
    }

    mutating func dense(_ name: String, _ hidden: Int, _ activation: Activation) -> FeedForward {
        let rows = hidden * activation.inputsPerOutput
        let input = declare("\(name).input", rows, width)
        return FeedForward(input: input, output: declare("\(name).output", width, hidden), activation: activation)
    }
}
