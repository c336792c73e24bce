public import ApusData
import ApusExperts
public import ApusKernels
public import ApusModels
public import ApusNN
public import ApusOptim
import ApusTensor

// Shape letters: B sequences of the global batch, S tokens of a sequence, T = B * S.

/// The whole training step, on one screen.
///
/// 1. The divisor of the loss, the number of target tokens of the global batch, is known before the first forward.
/// 2. For each micro-batch: forward and backward on a tape of its own; gradients accumulate in place.
/// 3. The norm of all gradients, and the factor that clips it.
/// 4. A loss or a norm that is not finite stops here, before the weights are touched.
/// 5. AdamW, which zeroes the gradients in the same pass.
/// 6. Routers that balance by bias adjust it.
public struct TrainStep {
    /// The model.
    public let model: Transformer
    /// The optimizer of its parameters.
    public let optimizer: AdamW
    /// Where it runs.
    public let backend: any Backend
    /// Batch, clipping, checkpointing and groups.
    public let configuration: TrainingConfiguration
    /// The run's seed.
    public let seed: UInt64

    /// A step over a model.
    public init(
        model: Transformer, optimizer: AdamW, backend: any Backend, configuration: TrainingConfiguration, seed: UInt64
    ) {
        self.model = model
        self.optimizer = optimizer
        self.backend = backend
        self.configuration = configuration
        self.seed = seed
    }

    /// What a step yields.
    public struct Result {
        /// Mean loss over the target tokens of the global batch, in nats.
        public let loss: Float
        /// Norm of all gradients before clipping.
        public let gradientNorm: Float
        /// Loads and losses of the MoE layers.
        public let routing: RoutingSummary
    }

    /// Reads some of the batch's B sequences of S tokens, one sequence after the other.
    public typealias Reader = (_ sequences: Range<Int>) throws -> TokenBatch

    /// Runs step `step` (from 1) on `batch`: (T) tokens and targets, sequences of equal length one after the other;
    /// negative targets are ignored. A `trace` gets the times of the phases and of what is in them.
    ///
    /// - Throws: what ``callAsFunction(step:sequenceLength:learningRate:trace:read:)`` throws.
    public func callAsFunction(
        step: Int, batch: TokenBatch, learningRate: Double, trace: Trace? = nil
    ) throws -> Result {
        let length = batch.inputs.count / configuration.batch
        return try self(step: step, sequenceLength: length, learningRate: learningRate, trace: trace) {
            batch[$0.lowerBound * length..<$0.upperBound * length]
        }
    }

    /// Runs step `step` (from 1) on sequences of S tokens that `read` gives a micro-batch at a time, so that the whole
    /// batch is never in memory; negative targets are ignored.
    ///
    /// - Throws: ``NonFiniteError`` before anything has changed; ``TensorError`` when memory runs out; what `read`
    ///   throws.
    public func callAsFunction(
        step: Int, sequenceLength: Int, learningRate: Double, trace: Trace? = nil, read: @escaping Reader
    ) throws -> Result {
        let targetCount = try microBatches.reduce(0) { try $0 + read($1).targets.count { $0 >= 0 } }
        let report = RoutingReport()
        var losses: [Tensor] = []
        var pooled: [Tensor] = []
        for sequences in microBatches {
            let micro = try read(sequences)
            let tokens = try backend.tensor(micro.inputs, Shape(micro.inputs.count))
            let targets = try backend.tensor(micro.targets, Shape(micro.targets.count))
            let tape = Tape(backend: backend, trace: trace)
            let context = try context(
                tape, sequences: sequences.count, sequenceLength, firstToken: sequences.lowerBound * sequenceLength,
                step: step, globalTokens: configuration.batch * sequenceLength, documents: micro.documents, report)
            let result = try trace.span("forward", .phase) {
                try model.loss(
                    tokens: tokens, targets: targets, scale: 1 / Float(max(targetCount, 1)),
                    checkpointing: configuration.checkpointing, context)
            }
            losses.append(result.loss.tensor)
            if let balance = result.pooledBalance { pooled.append(balance) }
            try trace.span("backward", .phase) { try tape.backward() }
        }
        let norm = try trace.span("gradient norm", .phase) {
            try GradientNorm(model.store, limit: configuration.clipNorm, backend: backend)
        }
        let readout = try trace.span("read back", .phase) {
            try StepReadout(losses: losses, norm: norm, report: report, pooled: pooled, backend: backend)
        }
        guard readout.loss.isFinite, readout.gradientNorm.isFinite else {
            throw try NonFiniteError(step: step, loss: readout.loss, sequenceLength: sequenceLength, read, in: self)
        }
        try trace.span("optimizer", .phase) {
            try optimizer.step(learningRate: learningRate, gradientScale: norm.scale, backend: backend)
        }
        try trace.span("routers", .phase) { try finishRouters(readout.routing) }
        return Result(loss: readout.loss, gradientNorm: readout.gradientNorm, routing: readout.routing)
    }

    /// The sequences of each micro-batch.
    var microBatches: [Range<Int>] {
        stride(from: 0, to: configuration.batch, by: configuration.microBatch).map { first in
            first..<min(first + configuration.microBatch, configuration.batch)
        }
    }

    /// The context of `sequences` sequences that begin at token `firstToken` of the global batch.
    func context(
        _ tape: Tape, sequences: Int, _ sequenceLength: Int, firstToken: Int, step: Int?, globalTokens: Int,
        documents: TokenBatch.Documents?, _ report: RoutingReport?
    ) throws -> MoEContext {
        var layout = try TokenLayout.sequences(
            Array(repeating: sequenceLength, count: sequences), groupSize: configuration.routingGroup,
            balanceSize: configuration.balanceGroup, firstGlobalToken: firstToken, backend: backend)
        if let documents {
            layout = TokenLayout(
                cumulativeLengths: layout.cumulativeLengths,
                positions: try backend.tensor(documents.positions, Shape(layout.tokenCount)),
                firstKey: try backend.tensor(documents.firstKeys, Shape(layout.tokenCount)),
                routingGroups: layout.routingGroups, balanceGroups: layout.balanceGroups, firstGlobalToken: firstToken)
        }
        let forward = ForwardContext(tape: tape, layout: layout, trainingStep: step, seed: seed)
        return MoEContext(forward: forward, report: report, globalTokens: globalTokens)
    }

    private func finishRouters(_ routing: RoutingSummary) throws {
        for layer in model.moeLayers {
            guard let load = routing.layers.first(where: { $0.layer == layer.layer }) else { continue }
            try layer.router.finishStep(choices: load.choices, backend: backend)
        }
    }
}
