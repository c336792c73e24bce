import ApusKernels
import ApusNN
import ApusTensor
import ApusTestSupport
import Testing

/// Parameters placed in a store and drawn from their initializers.
struct Placed {
    let store: ParameterStore
    let backend: CPUBackend

    init(_ parameters: [Parameter], _ backend: CPUBackend, precision: Precision = .f32, seed: UInt64 = 1) throws {
        self.backend = backend
        store = try ParameterStore(parameters, backend: backend, precision: precision, isTrained: true)
        try store.initialize(seed: seed, backend: backend)
    }

    func zeroGradients() throws {
        for part in store.gradientParts { try (backend as any Backend).fill(part.gradients(), with: 0) }
    }

    /// The gradient of every parameter, by name.
    func gradients() throws -> [String: [Float]] {
        try Dictionary(uniqueKeysWithValues: store.parameters.map { ($0.name, try $0.gradient()?.floats() ?? []) })
    }
}

/// A parameter of normal draws, norms and biases included, so that no derivative is special.
func parameter(_ name: String, _ dimensions: Int..., deviation: Float = 0.5, role: ParameterRole = .dense) -> Parameter
{
    Parameter(name, Shape(dimensions), role: role, initializer: .normal(deviation: deviation))
}

/// Checks the gradients of a layer with respect to its inputs and all parameters by differences.
struct LayerCheck {
    let backend: CPUBackend
    let placed: Placed
    var check = GradientCheck()

    init(_ backend: CPUBackend, _ parameters: [Parameter]) throws {
        self.backend = backend
        placed = try Placed(parameters, backend)
    }

    /// - Parameter usingOutputs: Which outputs the loss reads; all by default.
    func expect(
        _ name: String, inputs: [Tensor], usingOutputs: [Int]? = nil, sourceLocation: SourceLocation = #_sourceLocation,
        forward: (Tape, [Variable]) throws -> [Variable]
    ) throws {
        let tape = Tape(backend: backend)
        let leaves = inputs.map(tape.leaf)
        let outputs = try forward(tape, leaves)
        let used = usingOutputs ?? Array(outputs.indices)
        let seeds = try used.map { try backend.allocator.random(outputs[$0].shape, seed: UInt64($0) + 100) }
        for (output, seed) in zip(used, seeds) { try tape.addRoot(outputs[output], seed: seed) }
        try placed.zeroGradients()
        try tape.backward()
        func loss() throws -> Double {
            let idle = Tape(backend: backend, isRecording: false)
            let outputs = try forward(idle, inputs.map(Variable.constant))
            return zip(used, seeds).reduce(0) { $0 + weightedSum(outputs[$1.0].tensor, $1.1) }
        }
        for (index, (input, leaf)) in zip(inputs, leaves).enumerated() {
            let gradient = try #require(
                tape.gradient(of: leaf), "\(name): no gradient for input \(index)", sourceLocation: sourceLocation)
            try check.expect(
                gradient.floats(), of: input, "\(name), input \(index)", sourceLocation: sourceLocation, loss: loss)
        }
        for parameter in placed.store.parameters {
            let gradient = try #require(try parameter.gradient())
            try check.expect(
                gradient.floats(), of: try parameter.acquire(on: .cpu), "\(name), \(parameter.name)",
                sourceLocation: sourceLocation, loss: loss)
        }
    }
}
