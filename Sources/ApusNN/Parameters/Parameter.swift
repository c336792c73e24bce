public import ApusTensor

/// Which flat buffer a parameter lives in, and over which ranks its gradient is reduced.
public enum ParameterRole: String, Sendable, CaseIterable {
    /// Read by every token: attention, norms, embeddings, dense and shared feed-forward layers.
    case dense
    /// Read by the tokens routed to one expert.
    case expert
    /// The router's own.
    case router
}

/// How a parameter begins.
public enum Initializer: Sendable, Equatable {
    /// Normal draws around zero.
    case normal(deviation: Float)
    /// One value everywhere.
    case constant(Float)
}

/// The part of a parameter that a rank holds: a range of one dimension of the full shape.
public struct Shard: Sendable, Equatable {
    /// The dimension that is cut.
    public let dimension: Int
    /// What is held of it.
    public let range: Range<Int>

    /// A range of a dimension.
    public init(dimension: Int, range: Range<Int>) {
        self.dimension = dimension
        self.range = range
    }
}

/// A handle on one trained tensor: its name and place in the model, and the way to its storage.
///
/// Ops obtain the weights by ``acquire(on:)`` and give them back by ``release(on:)``, so that whoever owns the storage
/// may gather it from other ranks, fetch it from the host or dequantise it in between. Gradients are views of flat
/// buffers and are accumulated in place.
public final class Parameter {
    /// The stable name, the same on every rank and in every checkpoint: `model.layers.3.mlp.experts.7.up_proj.weight`.
    public let name: String
    /// Extents of the full tensor.
    public let shape: Shape
    /// What this rank holds of it; `nil` for all.
    public let shard: Shard?
    /// Who else holds the same.
    public let sharing: Sharing
    /// Which buffer it lives in.
    public let role: ParameterRole
    /// Global layer, when it belongs to one.
    public let layer: Int?
    /// Global expert, when it belongs to one.
    public let expert: Int?
    /// Whether weight decay applies: not to norms and biases.
    public let decays: Bool
    /// How it begins.
    public let initializer: Initializer
    /// Where it is; set once by ``ParameterStore``.
    private(set) var placement: Placement?

    struct Placement {
        let buffers: GroupBuffers
        let offset: Int
    }

    /// Declares a parameter; it has no storage until a ``ParameterStore`` places it.
    public init(
        _ name: String, _ shape: Shape, role: ParameterRole = .dense, layer: Int? = nil, expert: Int? = nil,
        decays: Bool = true, initializer: Initializer, shard: Shard? = nil, sharing: Sharing = Sharing()
    ) {
        self.name = name
        self.shape = shape
        self.shard = shard
        self.sharing = sharing
        self.role = role
        self.layer = layer
        self.expert = expert
        self.decays = decays
        self.initializer = initializer
    }

    /// Extents of what this rank holds.
    public var localShape: Shape {
        guard let shard else { return shape }
        var dimensions = shape.dimensions
        dimensions[shard.dimension] = shard.range.count
        return Shape(dimensions)
    }

    func place(in buffers: GroupBuffers, at offset: Int) {
        precondition(placement == nil, "\(name) has a place already")
        placement = Placement(buffers: buffers, offset: offset)
    }

    var placed: Placement {
        guard let placement else { preconditionFailure("\(name) has no storage: no ParameterStore holds it") }
        return placement
    }
}

/// What an op needs of weights, be they one parameter or several that lie next to each other.
public protocol Weight {
    /// Extents of the weights as the op sees them.
    var weightShape: Shape { get }
    /// The weights, complete and readable on `stream` until ``release(on:)``.
    func acquire(on stream: Stream) throws -> Tensor
    /// Ends a use begun by ``acquire(on:)``.
    func release(on stream: Stream)
    /// The accumulated gradient, zero at first, or `nil` when the weights are not trained.
    ///
    /// - Throws: ``TensorError/outOfMemory(requested:purpose:statistics:limit:)``; see ``GradientPart``.
    func gradient() throws -> Tensor?
    /// The same for somebody who writes it whole: what is there is to be added to with `adds`, else undefined.
    ///
    /// - Throws: as ``gradient()``.
    func gradientTarget() throws -> (gradient: Tensor, adds: Bool)?
}

extension Weight {
    /// Runs `body` with the weights acquired.
    public func withWeights<Result>(on stream: Stream, _ body: (Tensor) throws -> Result) throws -> Result {
        let weights = try acquire(on: stream)
        defer { release(on: stream) }
        return try body(weights)
    }
}

extension Parameter: Weight {
    /// ``localShape``.
    public var weightShape: Shape { localShape }

    public func acquire(on stream: Stream) throws -> Tensor { placed.buffers.weights(at: placed.offset, localShape) }

    public func release(on stream: Stream) {}

    public func gradient() throws -> Tensor? { try placed.buffers.gradient(at: placed.offset, localShape) }

    public func gradientTarget() throws -> (gradient: Tensor, adds: Bool)? {
        try placed.buffers.gradientTarget(at: placed.offset, localShape)
    }
}

/// Parameters that lie next to each other, read as one tensor: the three projections of attention, or the matrices of
/// consecutive experts.
public struct ParameterSpan: Weight {
    /// The parameters, in the order of their storage.
    public let parameters: [Parameter]
    /// Extents of the whole.
    public let weightShape: Shape

    /// `parameters`, declared one after the other, as one tensor of `shape`.
    public init(_ parameters: [Parameter], shape: Shape) {
        precondition(!parameters.isEmpty)
        precondition(parameters.reduce(0) { $0 + $1.localShape.count } == shape.count, "the parts do not fill \(shape)")
        self.parameters = parameters
        weightShape = shape
    }

    public func acquire(on stream: Stream) throws -> Tensor { place.buffers.weights(at: place.offset, weightShape) }

    public func release(on stream: Stream) {}

    public func gradient() throws -> Tensor? { try place.buffers.gradient(at: place.offset, weightShape) }

    public func gradientTarget() throws -> (gradient: Tensor, adds: Bool)? {
        try place.buffers.gradientTarget(at: place.offset, weightShape)
    }

    private var place: Parameter.Placement {
        let first = parameters[0].placed
        let last = parameters[parameters.count - 1]
        precondition(
            last.placed.buffers === first.buffers
                && last.placed.offset + last.localShape.count - first.offset == weightShape.count,
            "\(parameters[0].name) to \(last.name) do not lie next to each other")
        return first
    }
}
