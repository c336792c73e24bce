import ApusExperts
import ApusKernels
import ApusOptim
import ApusTensor

/// What a step tells the host: copies that are asked for when the step is, and looked at when they have arrived.
///
/// On the CPU the numbers are there at once. On a device everything is one copy behind the step's last op.
struct StepReadout {
    private let passes: TrainStep.Passes
    private let sumOfSquares: Tensor
    private let scale: Tensor
    private let layers: [RoutingReport.Layer]
    /// What completes the copies; each event once.
    private let arrivals: [ApusTensor.Event]

    init(
        _ passes: TrainStep.Passes, norm: GradientNorm, layers reported: [RoutingReport.Layer], backend: any Backend
    ) throws {
        let numbers = passes.losses + passes.divergences + passes.pooled
        let wanted = [norm.sumOfSquares, norm.scale] + numbers + reported.flatMap(\.tensors)
        var rest = try backend.download(wanted)[...]
        arrivals = rest.compactMap(\.ready).reduce(into: []) { known, event in
            if known.last !== event { known.append(event) }
        }
        func take(_ count: Int) -> [Tensor] {
            defer { rest = rest.dropFirst(count) }
            return Array(rest.prefix(count))
        }
        (sumOfSquares, scale) = (take(1)[0], take(1)[0])
        self.passes = TrainStep.Passes(
            losses: take(passes.losses.count), divergences: take(passes.divergences.count),
            pooled: take(passes.pooled.count))
        layers = reported.map { $0.replacing(take($0.tensors.count)) }
    }

    /// Whether all of it has arrived.
    var isComplete: Bool { arrivals.allSatisfy(\.isComplete) }

    /// Blocks until it has.
    func wait() throws { for event in arrivals { try event.wait() } }

    /// The sum of the micro-batches' losses.
    var loss: Float { sum(passes.losses) }
    /// That of their divergences from the teacher's distributions; `nil` where it was not asked.
    var divergence: Float? { passes.divergences.isEmpty ? nil : sum(passes.divergences) }
    /// The norm of all gradients before clipping.
    var gradientNorm: Float { sumOfSquares.floats()[0].squareRoot() }
    /// Whether the device took the step: a loss or a norm that is not finite holds back it and all steps after it.
    var isTaken: Bool { scale.floats()[0].isFinite }
    /// What the MoE layers did.
    var routing: RoutingSummary { RoutingSummary(layers, pooled: passes.pooled) }

    private func sum(_ values: [Tensor]) -> Float { values.reduce(0) { $0 + $1.floats()[0] } }
}
