import ApusExperts
import ApusKernels
import ApusOptim
import ApusTensor

/// What a step tells the host. Every copy is asked for before the first is waited for: the host waits once a step.
struct StepReadout {
    /// The sum of the micro-batches' losses.
    let loss: Float
    /// The norm of all gradients before clipping.
    let gradientNorm: Float
    /// What the MoE layers did.
    let routing: RoutingSummary

    init(
        losses: [Tensor], norm: GradientNorm, report: RoutingReport, pooled: [Tensor], backend: any Backend
    ) throws {
        let losses = try losses.map(backend.download)
        let squares = try backend.download(norm.sumOfSquares)
        let pooled = try pooled.map(backend.download)
        let layers = try report.layers.map { try $0.downloaded(by: backend) }
        for tensor in losses + [squares] + pooled { try tensor.ready?.wait() }
        for layer in layers { try layer.waitUntilReady() }
        loss = losses.reduce(0) { $0 + $1.floats()[0] }
        gradientNorm = squares.floats()[0].squareRoot()
        routing = RoutingSummary(layers, pooled: pooled)
    }
}
