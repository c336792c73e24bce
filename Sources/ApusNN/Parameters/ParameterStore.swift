public import ApusKernels
public import ApusTensor

/// Parameters of one role and decay, in a flat buffer for weights and others for gradients.
public final class ParameterGroup {
    /// The role that all of them have.
    public let role: ParameterRole
    /// Whether weight decay applies to them.
    public let decays: Bool
    /// Types of weights, gradients and state.
    public let precision: Precision
    /// The parameters in the order of their storage.
    public let parameters: [Parameter]
    /// All weights, dense.
    public let weights: Tensor
    /// All gradients, in the order of storage; none when the model is not trained.
    public let gradientParts: [GradientPart]

    init(
        role: ParameterRole, decays: Bool, precision: Precision, parameters: [Parameter], backend: any Backend,
        isTrained: Bool
    ) throws {
        self.role = role
        self.decays = decays
        self.precision = precision
        self.parameters = parameters
        let count = parameters.reduce(0) { $0 + $1.localShape.count }
        weights = try backend.empty(Shape(count), precision.modelType, .parameters)
        gradientParts = isTrained ? GradientPart.parts(of: parameters, precision.gradientType, backend: backend) : []
        var offset = 0
        for parameter in parameters {
            parameter.place(in: self, at: offset)
            offset += parameter.localShape.count
        }
    }

    func weights(at offset: Int, _ shape: Shape) -> Tensor { view(weights, offset, shape) }

    func gradient(at offset: Int, _ shape: Shape) throws -> Tensor? {
        try part(at: offset).map { part in
            let first = offset - part.range.lowerBound
            return view(try part.complete(first..<first + shape.count), 0, shape)
        }
    }

    func gradientTarget(at offset: Int, _ shape: Shape) throws -> (gradient: Tensor, adds: Bool)? {
        try part(at: offset).map { part in
            let first = offset - part.range.lowerBound
            let (gradient, adds) = try part.target(first..<first + shape.count)
            return (view(gradient, 0, shape), adds)
        }
    }

    private func part(at offset: Int) -> GradientPart? { gradientParts.last { $0.range.lowerBound <= offset } }

    private func view(_ buffer: Tensor, _ offset: Int, _ shape: Shape) -> Tensor {
        Tensor(
            storage: buffer.storage, byteOffset: buffer.byteOffset + buffer.dtype.byteCount(elements: offset),
            shape: shape, dtype: buffer.dtype)
    }

    /// The flat elements of `parameter` within the buffers.
    public func range(of parameter: Parameter) -> Range<Int> {
        let offset = parameter.placed.offset
        return offset..<offset + parameter.localShape.count
    }
}

/// Owns the storage of a model's parameters: a flat buffer for each role, decaying and not.
///
/// Within a group parameters lie in the order of declaration without gaps, so that neighbours can be read as one tensor
/// (``ParameterSpan``).
public final class ParameterStore {
    /// The groups, in a fixed order.
    public let groups: [ParameterGroup]
    /// All parameters in the order of declaration.
    public let parameters: [Parameter]
    /// The precision asked for; a group may differ (routers stay in `f32`).
    public let precision: Precision
    private let byName: [String: Parameter]

    /// Places `parameters`, weights undefined, gradients zero.
    ///
    /// - Throws: ``TensorError/outOfMemory(requested:purpose:statistics:limit:)``
    public init(_ parameters: [Parameter], backend: any Backend, precision: Precision, isTrained: Bool) throws {
        self.parameters = parameters
        self.precision = precision
        byName = Dictionary(parameters.map { ($0.name, $0) }) { first, _ in
            preconditionFailure("two parameters are named \(first.name)")
        }
        var groups: [ParameterGroup] = []
        for role in ParameterRole.allCases {
            for decays in [true, false] {
                let members = parameters.filter { $0.role == role && $0.decays == decays }
                guard !members.isEmpty else { continue }
                groups.append(
                    try ParameterGroup(
                        role: role, decays: decays, precision: precision.effective(for: role), parameters: members,
                        backend: backend, isTrained: isTrained))
            }
        }
        self.groups = groups
    }

    /// Every part of the gradients, in the groups' order.
    public var gradientParts: [GradientPart] { groups.flatMap(\.gradientParts) }

    /// Gives the gradients' memory back; the next that are asked for are zero.
    public func releaseGradients() {
        for part in gradientParts { part.release() }
    }

    /// The parameter of this name.
    public subscript(name: String) -> Parameter? { byName[name] }

    /// Draws every weight from its initializer. Draws depend on the seed, the parameter's name and the element's place
    /// in the full tensor, so that a shard begins as the same part of the whole.
    public func initialize(seed: UInt64, backend: any Backend) throws {
        for parameter in parameters {
            let weights = try parameter.acquire(on: backend.stream)
            defer { parameter.release(on: backend.stream) }
            switch parameter.initializer {
            case .constant(let value): try backend.fill(weights, with: value)
            case .normal(let deviation):
                let stream = RandomStream(seed: seed ^ stableHash(parameter.name), purpose: .initialization)
                try backend.fillRandomShard(
                    weights, of: parameter.shape, shard: parameter.shard, .normal(mean: 0, deviation: deviation),
                    stream: stream)
            }
        }
    }
}

/// FNV-1a of a name: keys a parameter's draws by what it is called, not by where it is declared.
private func stableHash(_ text: String) -> UInt64 {
    text.utf8.reduce(0xcbf2_9ce4_8422_2325) { ($0 ^ UInt64($1)) &* 0x100_0000_01b3 }
}

extension Backend {
    /// Draws the elements of a shard as they are in the full tensor.
    fileprivate func fillRandomShard(
        _ target: Tensor, of shape: Shape, shard: Shard?, _ distribution: RandomDistribution, stream: RandomStream
    ) throws {
        guard let shard else { return try fillRandom(target, distribution, stream: stream, first: 0) }
        // Entries of the dimensions above the cut are runs of consecutive elements in the full tensor.
        let inner = shape.dimensions[(shard.dimension + 1)...].reduce(1, *)
        let outer = shape.dimensions[..<shard.dimension].reduce(1, *)
        let run = shard.range.count * inner
        let flat = target.reshaped(outer, run)
        for index in 0..<outer {
            let first = (index * shape[shard.dimension] + shard.range.lowerBound) * inner
            try fillRandom(flat[index..<index + 1], distribution, stream: stream, first: UInt64(first))
        }
    }
}
