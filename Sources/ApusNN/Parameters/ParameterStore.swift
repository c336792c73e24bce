public import ApusKernels
public import ApusTensor

/// Parameters of one role, decay and sharing, in a flat buffer for weights and others for gradients.
public final class ParameterGroup {
    /// What the parameters of a group have in common.
    struct Kind: Hashable {
        let role: ParameterRole
        let decays: Bool
        let sharing: Sharing
    }

    /// The role that all of them have.
    public let role: ParameterRole
    /// Whether weight decay applies to them.
    public let decays: Bool
    /// Who else holds the same of them.
    public let sharing: Sharing
    /// Types of weights, gradients and state.
    public let precision: Precision
    /// The parameters in the order of their storage.
    public let parameters: [Parameter]
    private let buffers: GroupBuffers

    /// All weights, dense, with padding between parts where ranks share them.
    public var weights: Tensor { buffers.weights }
    /// All gradients, in the order of storage; none when the model is not trained.
    public var gradientParts: [GradientPart] { buffers.gradientParts }

    /// `parameters` with their place among all that the model declares.
    init(
        _ kind: Kind, precision: Precision, parameters: [(place: Int, parameter: Parameter)], share: StateShare,
        backend: any Backend, isTrained: Bool
    ) throws {
        role = kind.role
        decays = kind.decays
        sharing = kind.sharing
        self.precision = precision
        self.parameters = parameters.map(\.parameter)
        let cuts = GradientPart.cuts(of: self.parameters)
        var parts: [GradientPart] = []
        for cut in cuts {
            parts.append(
                GradientPart(
                    first: parts.last?.range.upperBound ?? 0,
                    counts: parameters[cut].map { $0.parameter.localShape.count },
                    firstParameter: parameters[cut.lowerBound].place, share: share, precision.gradientType,
                    backend: backend))
        }
        let weights = try backend.empty(
            Shape(parts.last?.range.upperBound ?? 0), precision.modelType, .parameters)
        buffers = GroupBuffers(weights: weights, gradientParts: isTrained ? parts : [])
        for (part, cut) in zip(parts, cuts) {
            var offset = part.range.lowerBound
            for (_, parameter) in parameters[cut] {
                parameter.place(in: buffers, at: offset)
                offset += parameter.localShape.count
            }
        }
        // Padding takes part in what is done to the whole buffer.
        if share.count > 1 { try backend.fill(weights, with: 0) }
    }

    /// The flat elements of `parameter` within the buffers.
    public func range(of parameter: Parameter) -> Range<Int> {
        let offset = parameter.placed.offset
        return offset..<offset + parameter.localShape.count
    }
}

/// Owns the storage of a model's parameters: a flat buffer for each role, decaying and not, and for each way of sharing.
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
    /// - Parameter share: This rank's part in what the ranks with parameters of a sharing divide among them.
    /// - Throws: ``TensorError/outOfMemory(requested:purpose:statistics:limit:)``
    public init(
        _ parameters: [Parameter], backend: any Backend, precision: Precision, isTrained: Bool,
        share: (Sharing) -> StateShare = { _ in .whole }
    ) throws {
        self.parameters = parameters
        self.precision = precision
        byName = Dictionary(parameters.map { ($0.name, $0) }) { first, _ in
            preconditionFailure("two parameters are named \(first.name)")
        }
        var members: [ParameterGroup.Kind: [(place: Int, parameter: Parameter)]] = [:]
        var kinds: [ParameterGroup.Kind] = []
        for (place, parameter) in parameters.enumerated() {
            let kind = ParameterGroup.Kind(
                role: parameter.role, decays: parameter.decays, sharing: parameter.sharing)
            if members[kind] == nil { kinds.append(kind) }
            members[kind, default: []].append((place, parameter))
        }
        // The same on all ranks, for they reduce the gradients of one group after the other.
        let order = kinds.sorted { $0.order.lexicographicallyPrecedes($1.order) }
        groups = try order.map { kind in
            try ParameterGroup(
                kind, precision: precision.effective(for: kind.role), parameters: members[kind] ?? [],
                share: share(kind.sharing), backend: backend, isTrained: isTrained)
        }
    }

    /// Every part of the gradients, in the groups' order.
    public var gradientParts: [GradientPart] { groups.flatMap(\.gradientParts) }

    /// Some elements of a parameter, as a rank has them.
    public struct Piece {
        /// The parameter.
        public let parameter: Parameter
        /// Who else holds the same.
        public let sharing: Sharing
        /// Which elements, of what this rank holds of the parameter.
        public let elements: Range<Int>
        /// Their values.
        public let tensor: Tensor
    }

    /// The gradients that are here, parameter by parameter.
    ///
    /// - Throws: as ``GradientPart/gradients()``.
    public func gradientPieces() throws -> [Piece] {
        try groups.flatMap { group in
            try group.gradientParts.flatMap { part in
                let (held, gradients) = (part.heldRange, try part.heldGradients())
                return group.parameters.compactMap { parameter -> Piece? in
                    let range = group.range(of: parameter)
                    let common = range.clamped(to: held)
                    guard !common.isEmpty else { return nil }
                    let first = common.lowerBound - held.lowerBound
                    return Piece(
                        parameter: parameter, sharing: group.sharing,
                        elements: common.lowerBound - range.lowerBound..<common.upperBound - range.lowerBound,
                        tensor: gradients[first..<first + common.count])
                }
            }
        }
    }

    /// The weights that are here, parameter by parameter.
    public func weightPieces() -> [Piece] {
        groups.flatMap { group in
            group.parameters.map { parameter in
                Piece(
                    parameter: parameter, sharing: group.sharing, elements: 0..<parameter.localShape.count,
                    tensor: group.weights[group.range(of: parameter)])
            }
        }
    }

    /// Gives the gradients' memory back; the next that are asked for are zero.
    public func releaseGradients() {
        for part in gradientParts { part.release() }
    }

    /// How many parameters are declared before the first of the layer `layer` or a later one; those of no layer come
    /// before the first layer or after the last.
    public func parameters(before layer: Int) -> Int {
        if let first = parameters.firstIndex(where: { ($0.layer ?? -1) >= layer }) { return first }
        return (parameters.lastIndex { $0.layer != nil } ?? -1) + 1
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
                let stream = RandomStream(initialOf: parameter.name, seed: seed)
                try backend.fillRandomShard(
                    weights, of: parameter.shape, shard: parameter.shard, .normal(mean: 0, deviation: deviation),
                    stream: stream)
            }
        }
    }
}

extension ParameterGroup.Kind {
    /// Roles in their order, decaying first, then by who shares.
    fileprivate var order: [Int] {
        [
            ParameterRole.allCases.firstIndex(of: role) ?? 0, decays ? 0 : 1, sharing.overTensorRanks.rawValue,
            sharing.expertDegree ?? 0,
        ]
    }
}

extension RandomStream {
    /// The stream of the initial weights of the parameter `name` in a run of this seed.
    package init(initialOf name: String, seed: UInt64) {
        self.init(seed: seed ^ stableHash(name), purpose: .initialization)
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
