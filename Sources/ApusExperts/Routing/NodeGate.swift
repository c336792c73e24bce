import ApusKernels
public import ApusNN
import ApusTensor

// Shape letters: T tokens, D model width, E experts, N nodes.

/// The first level of a two-level router (SMILE, He et al. 2022): a gate over nodes, on each of which E / N experts lie.
///
/// A token's probability of an expert is that of its node times that of the expert among the node's. As a softmax over all
/// experts has it when a node's logit joins those of its experts, less what these make of themselves:
/// `logits[e] = x w_e + x w_n - log(sum over the node's experts of exp(x w))`.
public struct NodeGate {
    /// (N, D), `f32`.
    public let weight: Parameter

    /// A gate over nodes.
    public init(weight: Parameter) { self.weight = weight }

    private var nodes: Int { weight.shape[0] }

    /// What backward reads.
    struct Kept {
        /// (T N, E / N): each node's softmax over its experts.
        let shares: Tensor
    }

    /// Adds the nodes' part to the experts' logits (T, E).
    func join(_ logits: Tensor, _ x: Tensor, _ backend: any Backend) throws -> Kept {
        let (tokens, experts) = (logits.shape[0], logits.shape[1])
        let inner = logits.reshaped(tokens * nodes, experts / nodes)
        let shares = try backend.empty(inner.shape, .f32)
        try backend.softmax(inner, into: shares)
        let own = try backend.empty(Shape(tokens, nodes), .f32, .workspace)
        try weight.withWeights(on: backend.stream) { try backend.matMul(x.matrix, $0.transpose, into: own) }
        let sums = try backend.empty(Shape(tokens * nodes), .f32, .workspace)
        try backend.logSumExp(inner, into: sums)
        try backend.addScaled(sums.reshaped(tokens, nodes), factor: -1, into: own)
        let wide = try backend.empty(logits.shape, .f32, .workspace)
        try backend.matMul(own.matrix, NodeGate.places(nodes, experts, backend).matrix, into: wide)
        try backend.add(logits, wide, into: logits)
        return Kept(shares: shares)
    }

    /// Adds to the gate's gradient and to that of the input; makes of `dlogits` (T, E) that of the experts' own logits.
    func backward(_ dlogits: Tensor, _ kept: Kept, of input: Variable, _ flow: borrowing GradientFlow) throws {
        let backend = flow.backend
        let (tokens, experts) = (dlogits.shape[0], dlogits.shape[1])
        let own = try backend.empty(Shape(tokens, nodes), .f32, .workspace)
        try backend.matMul(dlogits.matrix, NodeGate.places(nodes, experts, backend).transpose, into: own)
        let rows = try backend.empty(kept.shares.shape, .f32, .workspace)
        let order = try backend.tensor((0..<tokens * nodes).map { Int32($0) }, Shape(tokens * nodes), .workspace)
        try backend.gatherRows(kept.shares, index: order, scale: own.reshaped(tokens * nodes), into: rows)
        try backend.addScaled(rows.reshaped(tokens, experts), factor: -1, into: dlogits)
        try RouterLogits.product(own, weight, of: input, flow)
    }

    /// (N, E): 1 where the expert is on the node.
    static func places(_ nodes: Int, _ experts: Int, _ backend: any Backend) throws -> Tensor {
        let size = experts / nodes
        let values = (0..<nodes * experts).map { Float($0 % experts / size == $0 / experts ? 1 : 0) }
        return try backend.tensor(values, Shape(nodes, experts), .workspace)
    }
}
