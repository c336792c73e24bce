import ApusKernels
public import ApusNN
import ApusTensor
import Glibc

// Shape letters: T tokens, D model width, E experts, P width of the cosine router's space.

/// What a cosine router has besides the vectors of its experts: logits are `cos(x w_p^T, w_e) / temperature`.
///
/// The temperature is `floor / sigmoid(parameter)`. Far from the floor that is an exponential, as Tutel's; it never gets
/// there, so that the gradient does not end there as with a clamp.
public struct CosineProjection {
    /// (P, D), `f32`.
    public let projection: Parameter
    /// (1), `f32`.
    public let temperature: Parameter
    /// What the temperature stays above.
    public let floor: Float

    /// A projection and a temperature.
    public init(projection: Parameter, temperature: Parameter, floor: Float) {
        precondition(floor > 0 && temperature.shape.count == 1)
        self.projection = projection
        self.temperature = temperature
        self.floor = floor
    }

    /// Added to the mean square of a vector, against one of zeros.
    private static let epsilon: Float = 1e-12

    private var width: Int { projection.shape[0] }
    /// The norm op makes vectors of length `sqrt(P)` times its weight.
    private var unit: Float { 1 / Float(width).squareRoot() }

    /// Tokens (T, D) and experts (E, P) on the unit sphere, the latter divided by the temperature.
    func compare(_ x: Tensor, with experts: Parameter, _ backend: any Backend) throws -> RouterLogits.Comparison {
        let projected = try backend.empty(Shape(x.shape[0], width), .f32)
        try projection.withWeights(on: backend.stream) {
            try backend.matMul(x.matrix, $0.transpose, into: projected)
        }
        let share = try backend.empty(Shape(1), .f32)
        try temperature.withWeights(on: backend.stream) { try backend.sigmoid($0, into: share) }
        let tokens = try backend.empty(projected.shape, .f32)
        let tokenNorms = try backend.empty(Shape(x.shape[0]), .f32)
        try backend.rmsNorm(
            projected, weight: units(backend), epsilon: Self.epsilon, into: tokens, rstd: tokenNorms)
        let vectors = try backend.empty(experts.shape, .f32)
        let expertNorms = try backend.empty(Shape(experts.shape[0]), .f32)
        try experts.withWeights(on: backend.stream) {
            try backend.rmsNorm(
                $0, weight: scaledUnits(share, backend), epsilon: Self.epsilon, into: vectors, rstd: expertNorms)
        }
        return RouterLogits.Comparison(
            projected: projected, tokens: tokens, experts: vectors, tokenNorms: tokenNorms, expertNorms: expertNorms,
            share: share)
    }

    /// `dx` of normalised tokens; it may be `dy`.
    func normBackward(_ dy: Tensor, of x: Tensor, _ norms: Tensor, into dx: Tensor, _ backend: any Backend) throws {
        try backend.rmsNormBackward(
            dy, x: x, weight: units(backend), rstd: norms, into: dx, adds: false, weightGradient: nil)
    }

    /// Adds the gradients of the experts' vectors and of the temperature's parameter, from that (E, P) of the scaled vectors.
    func expertGradient(
        _ dvectors: Tensor, _ kept: RouterLogits.Comparison, of experts: Parameter, _ backend: any Backend
    ) throws {
        let dunits = try backend.zeros(Shape(width), .f32, .workspace)
        let target = try experts.gradientTarget()
        let gradient = try target?.gradient ?? backend.empty(experts.shape, .f32, .workspace)
        try experts.withWeights(on: backend.stream) {
            try backend.rmsNormBackward(
                dvectors, x: $0, weight: scaledUnits(kept.share, backend), rstd: kept.expertNorms, into: gradient,
                adds: target?.adds ?? false, weightGradient: dunits)
        }
        guard let (dparameter, adds) = try temperature.gradientTarget() else { return }
        let dshare = try backend.empty(Shape(1), .f32, .workspace)
        try backend.sum(dunits, factor: unit / floor, into: dshare)
        try backend.sigmoidBackward(dshare, y: kept.share, into: dshare)
        if adds {
            try backend.addScaled(dshare, factor: 1, into: dparameter)
        } else {
            try backend.copy(dshare, into: dparameter)
        }
    }

    /// (P): the norm's weight that makes vectors of length 1.
    private func units(_ backend: any Backend) throws -> Tensor {
        let weight = try backend.empty(Shape(width), .f32, .workspace)
        try backend.fill(weight, with: unit)
        return weight
    }

    /// (P): the same for length 1 / temperature.
    private func scaledUnits(_ share: Tensor, _ backend: any Backend) throws -> Tensor {
        let weight = try backend.empty(Shape(width, 1), .f32, .workspace)
        let first = try backend.zeros(Shape(width), .i32, .workspace)
        try backend.gatherRows(share.reshaped(1, 1), index: first, scale: nil, into: weight)
        try backend.scale(weight, by: unit / floor, into: weight)
        return weight.reshaped(width)
    }
}
