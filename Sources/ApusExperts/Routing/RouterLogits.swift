import ApusKernels
import ApusNN
import ApusTensor

// Shape letters: T tokens, D model width, E experts, P width of the cosine router's space.

/// What turns tokens into logits, with its adjoint.
struct RouterLogits {
    /// (E, D), or (E, P) for a cosine router; `f32`.
    let weight: Parameter
    /// What else a cosine router has; `nil` for a linear one.
    let cosine: CosineProjection?
    /// The gate over nodes of a two-level router; `nil` for a router of one level.
    let nodes: NodeGate?

    /// What backward reads of a forward.
    enum Kept {
        case cosine(Comparison)
        case nodes(NodeGate.Kept)
    }

    /// What backward reads of a cosine router's forward.
    struct Comparison {
        /// (T, P), before it is normalised.
        let projected: Tensor
        /// (T, P) and (E, P), normalised; the latter divided by the temperature.
        let tokens: Tensor, experts: Tensor
        /// (T) and (E): reciprocal norms.
        let tokenNorms: Tensor, expertNorms: Tensor
        /// (1): the sigmoid that the temperature follows from.
        let share: Tensor
    }

    /// (T, E) `f32` from (T, D).
    func callAsFunction(_ x: Tensor, _ backend: any Backend) throws -> (logits: Tensor, kept: Kept?) {
        let logits = try backend.empty(Shape(x.shape[0], weight.shape[0]), .f32)
        guard let cosine else {
            try weight.withWeights(on: backend.stream) { try backend.matMul(x.matrix, $0.transpose, into: logits) }
            return (logits, try nodes.map { .nodes(try $0.join(logits, x, backend)) })
        }
        let kept = try cosine.compare(x, with: weight, backend)
        try backend.matMul(kept.tokens.matrix, kept.experts.transpose, into: logits)
        return (logits, .cosine(kept))
    }

    /// Adds to the gradients of the weights, and hands on that of the input. `dlogits` may be changed.
    func backward(_ dlogits: Tensor, _ kept: Kept?, of input: Variable, _ flow: borrowing GradientFlow) throws {
        let backend = flow.backend
        if let nodes, case .nodes(let kept)? = kept { try nodes.backward(dlogits, kept, of: input, flow) }
        guard let cosine, case .cosine(let kept)? = kept else {
            return try Self.product(dlogits, weight, of: input, flow)
        }
        let dtokens = try backend.empty(kept.tokens.shape, .f32)
        try backend.matMul(dlogits.matrix, kept.experts.matrix, into: dtokens)
        let dexperts = try backend.empty(kept.experts.shape, .f32)
        try backend.matMul(dlogits.transpose, kept.tokens.matrix, into: dexperts)
        try cosine.expertGradient(dexperts, kept, of: weight, backend)
        try cosine.normBackward(dtokens, of: kept.projected, kept.tokenNorms, into: dtokens, backend)
        try Self.product(dtokens, cosine.projection, of: input, flow)
    }

    /// The adjoint of `x w^T`.
    static func product(
        _ dy: Tensor, _ weight: Parameter, of input: Variable, _ flow: borrowing GradientFlow
    ) throws {
        let backend = flow.backend
        if let (gradient, adds) = try weight.gradientTarget() {
            try backend.matMul(dy.transpose, input.tensor.matrix, into: gradient, adds: adds)
        }
        try flow.accumulate(into: input) { dx, adds in
            try weight.withWeights(on: backend.stream) {
                try backend.matMul(dy.matrix, $0.matrix, into: dx, adds: adds)
            }
        }
    }
}
