public import ApusData
public import ApusExperts
public import ApusKernels
public import ApusModels
public import ApusNN
public import ApusOptim
import ApusParallel
import ApusTensor

// Shape letters: B sequences of the global batch, S tokens of a sequence, T = B * S.

/// The whole training step, on one screen.
///
/// 1. The divisor of the loss, the number of target tokens of the global batch, is known before the first forward.
/// 2. For each micro-batch: forward and backward on a tape of its own; gradients accumulate in place.
/// 3. The norm of all gradients, and the factor that clips it. A loss or a norm that is not finite makes it NaN.
/// 4. AdamW, after which the gradients are released; a factor of NaN holds it back.
/// 5. Routers that balance by bias adjust it, under the same condition.
/// 6. Loss, norm and loads are copied to the host, which need not wait for them.
///
/// With other ranks (``StepRanks``) the same happens on all of them, each with its part of the batch and of the model:
/// counts are added in 1, gradients while 2 goes on, loss, norm and loads in 3, and after 4 weights are collected.
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
    /// The other ranks of the run; `nil` when there are none.
    public let ranks: StepRanks?
    /// What the model learns from beside the text; `nil` for the text alone.
    public let teacher: Teacher?
    private let layouts: StepLayouts

    /// A step over a model, or over what this rank has of one.
    public init(
        model: Transformer, optimizer: AdamW, backend: any Backend, configuration: TrainingConfiguration, seed: UInt64,
        ranks: StepRanks? = nil, teacher: Teacher? = nil
    ) {
        self.model = model
        self.optimizer = optimizer
        self.backend = backend
        self.configuration = configuration
        self.seed = seed
        self.ranks = ranks
        self.teacher = teacher
        layouts = StepLayouts(configuration, backend: backend)
    }

    /// What a step yields.
    public struct Result {
        /// Mean loss over the target tokens of the global batch, in nats.
        public let loss: Float
        /// Mean divergence from the teacher's distribution over the same tokens, in nats at its temperature; `nil` where the
        /// text alone was learned from.
        public let divergence: Float?
        /// Norm of all gradients before clipping.
        public let gradientNorm: Float
        /// Loads and losses of the MoE layers.
        public let routing: RoutingSummary
    }

    /// Reads some of the batch's B sequences of S tokens, one sequence after the other.
    public typealias Reader = (_ sequences: Range<Int>) throws -> TokenBatch

    /// What records or replays the routing of a micro-batch, given by its sequences of the batch; `nil` when nothing does.
    public typealias RoutingSource = (_ sequences: Range<Int>) throws -> RoutingTrace?

    /// Runs step `step` (from 1) on `batch`: (T) tokens and targets, sequences of equal length one after the other;
    /// negative targets are ignored. A `trace` gets the times of the phases and of what is in them.
    ///
    /// - Throws: what ``callAsFunction(step:sequenceLength:learningRate:trace:routing:read:)`` throws.
    public func callAsFunction(
        step: Int, batch: TokenBatch, learningRate: Double, trace: Trace? = nil
    ) throws -> Result {
        let length = batch.targets.count / configuration.batch
        return try self(step: step, sequenceLength: length, learningRate: learningRate, trace: trace) {
            batch[$0.lowerBound * length..<$0.upperBound * length]
        }
    }

    /// Runs step `step` (from 1) on sequences of S tokens that `read` gives a micro-batch at a time, so that the whole
    /// batch is never in memory; negative targets are ignored. Waits for what it came to. `routing` is asked once for each
    /// micro-batch.
    ///
    /// - Throws: ``NonFiniteError`` before anything has changed; ``TensorError`` when memory runs out; what `read` and
    ///   `routing` throw.
    public func callAsFunction(
        step: Int, sequenceLength: Int, learningRate: Double, trace: Trace? = nil, routing: RoutingSource? = nil,
        read: @escaping Reader
    ) throws -> Result {
        let enqueued = try enqueue(
            step: step, sequenceLength: sequenceLength, learningRate: learningRate, trace: trace, routing: routing,
            read: read)
        return try trace.span("read back", .phase) { try enqueued.result() }
    }

    /// Gives the device all of step `step` and returns without waiting: what it came to can be asked of the result, also
    /// after later steps were enqueued.
    ///
    /// - Throws: ``TensorError`` when memory runs out; what `read` and `routing` throw.
    public func enqueue(
        step: Int, sequenceLength: Int, learningRate: Double, trace: Trace? = nil, routing: RoutingSource? = nil,
        read: @escaping Reader
    ) throws -> EnqueuedStep {
        let report = RoutingReport()
        let passes = try accumulate(
            step: step, sequenceLength: sequenceLength, report: report, trace: trace, routing: routing, read: read)
        let (norm, outcome) = try trace.span("gradient norm", .phase) { try measure(passes, report) }
        let stepsBefore = optimizer.stepCount
        try trace.span("optimizer", .phase) {
            try optimizer.step(learningRate: learningRate, gradientScale: norm.scale, backend: backend)
            if optimizer.dividesState { try ranks?.groups.collectWeights(of: model.store, backend: backend) }
        }
        let readout = try trace.span("routers", .phase) {
            try finishRouters(outcome.layers, gradientScale: norm.scale)
            return try StepReadout(
                outcome.passes, norm: norm, layers: outcome.layers, backend: backend)
        }
        return EnqueuedStep(
            step: step, learningRate: learningRate, readout: readout, trainStep: self, stepsBefore: stepsBefore,
            sequenceLength: sequenceLength, read: read)
    }

    /// What forward yields beside gradients: (1) `f32` each.
    struct Passes {
        /// The cross-entropies of micro-batches, or of the whole batch.
        var losses: [Tensor] = []
        /// The divergences from the teacher's distributions, where it was asked.
        var divergences: [Tensor] = []
        /// The pooled balance losses, if there are.
        var pooled: [Tensor] = []
    }

    /// Forward and backward of every micro-batch.
    func accumulate(
        step: Int, sequenceLength: Int, report: RoutingReport?, trace: Trace?, routing: RoutingSource? = nil,
        read: Reader
    ) throws -> Passes {
        let passes = microBatches
        let own = try passes.reduce(0) { try $0 + read($1).targets.count { $0 >= 0 } }
        let targetCount = try ranks?.sumOverBatch(own) ?? own
        let scale = 1 / Float(max(targetCount, 1))
        var found = Passes()
        for (pass, sequences) in passes.enumerated() {
            let micro = try read(sequences)
            let tokens = try backend.tensor(micro.inputs, Shape(micro.inputs.count))
            let targets = try backend.tensor(micro.targets, Shape(micro.targets.count))
            let tape = Tape(backend: backend, trace: trace)
            let reduction = ranks.flatMap { $0.reduces(after: pass, of: passes.count) ? $0.reduction : nil }
            let context = try context(
                tape, sequences: sequences.count, sequenceLength, firstToken: sequences.lowerBound * sequenceLength,
                step: step, globalTokens: configuration.batch * sequenceLength, documents: micro.documents, report,
                routing: try routing?(sequences),
                gradientsComplete: reduction.map { reduction in { try reduction.complete(from: $0) } })
            let said = try teacher.flatMap { teacher in
                try trace.span("teacher", .phase) {
                    try teacher.states(
                        tokens, step: step,
                        self.context(
                            Tape(backend: backend, isRecording: false), sequences: sequences.count, sequenceLength,
                            firstToken: sequences.lowerBound * sequenceLength, step: nil,
                            globalTokens: configuration.batch * sequenceLength, documents: micro.documents, nil))
                }
            }
            let result = try trace.span("forward", .phase) {
                try model.loss(
                    tokens: tokens, targets: targets, scale: scale, teacher: said,
                    checkpointing: configuration.checkpointing, context)
            }
            try found.add(result, scale: scale, backend)
            reduction?.begin()
            try trace.span("backward", .phase) { try tape.backward() }
            if let reduction { try trace.span("gradient exchange", .phase) { try reduction.finish() } }
        }
        return found
    }

    /// What a step came to, over all ranks.
    private typealias Outcome = (passes: Passes, layers: [RoutingReport.Layer])

    private func measure(_ passes: Passes, _ report: RoutingReport) throws -> (GradientNorm, Outcome) {
        guard let ranks else {
            let norm = try GradientNorm(
                model.store, loss: try sum(passes.losses), previous: optimizer.lastScale,
                limit: configuration.clipNorm, backend: backend)
            return (norm, (passes, report.layers))
        }
        let totals = try ranks.totals(
            loss: try sum(passes.losses),
            divergence: passes.divergences.isEmpty ? nil : try sum(passes.divergences), pooled: passes.pooled, report)
        let norm = try GradientNorm(
            sumOfSquares: totals.sumOfSquares, loss: totals.loss, previous: optimizer.lastScale,
            limit: configuration.clipNorm, backend: backend)
        let all = Passes(
            losses: [totals.loss], divergences: totals.divergence.map { [$0] } ?? [], pooled: totals.pooled)
        return (norm, (all, totals.layers))
    }

    /// Forgets what was accumulated.
    func clearGradients() {
        ranks?.reduction.abandon()
        model.store.releaseGradients()
    }

    /// The sequences of each micro-batch that this rank computes.
    var microBatches: [Range<Int>] {
        if let ranks {
            return BatchShare(ranks.groups.place, batch: configuration.batch, microBatch: configuration.microBatch)
                .passes
        }
        return stride(from: 0, to: configuration.batch, by: configuration.microBatch).map { first in
            first..<min(first + configuration.microBatch, configuration.batch)
        }
    }

    /// The context of `sequences` sequences that begin at token `firstToken` of the global batch.
    func context(
        _ tape: Tape, sequences: Int, _ sequenceLength: Int, firstToken: Int, step: Int?, globalTokens: Int,
        documents: TokenBatch.Documents?, _ report: RoutingReport?, routing: RoutingTrace? = nil,
        isEvaluation: Bool = false,
        gradientsComplete: ((_ parameters: Int) throws -> Void)? = nil
    ) throws -> MoEContext {
        let layout = try layouts.layout(
            sequences: sequences, length: sequenceLength, firstToken: firstToken, documents: documents)
        let forward = ForwardContext(
            tape: tape, layout: layout, trainingStep: step, seed: seed,
            keptOutputs: ranks?.configuration.keptOutputs ?? [], gradientsComplete: gradientsComplete)
        return MoEContext(
            forward: forward, trace: routing, report: report, globalTokens: globalTokens,
            batchRanks: ranks?.groups.data, isEvaluation: isEvaluation)
    }

    /// The sum of the micro-batches' losses on the device, added as the host adds them.
    private func sum(_ losses: [Tensor]) throws -> Tensor {
        if losses.count == 1 { return losses[0] }
        let total = try backend.zeros(Shape(1), .f32)
        for loss in losses { try backend.addScaled(loss, factor: 1, into: total) }
        return total
    }

    private func finishRouters(_ report: [RoutingReport.Layer], gradientScale: Tensor) throws {
        for layer in model.moeLayers {
            let choices = report.filter { $0.layer == layer.layer }.map(\.choices)
            guard !choices.isEmpty else { continue }
            try layer.router.finishStep(choices: choices, gradientScale: gradientScale, backend: backend)
        }
    }
}

extension TrainStep.Passes {
    /// Takes note of a micro-batch.
    mutating func add(_ result: Transformer.LossResult, scale: Float, _ backend: any Backend) throws {
        func sum(_ values: Tensor) throws -> Tensor {
            let sum = try backend.empty(Shape(1), .f32)
            try backend.sum(values, factor: scale, into: sum)
            return sum
        }
        if let divergence = result.divergence {
            // The loss has its term too.
            losses.append(try sum(result.perToken))
            divergences.append(try sum(divergence))
        } else {
            losses.append(result.loss.tensor)
        }
        if let balance = result.pooledBalance { pooled.append(balance) }
    }
}
