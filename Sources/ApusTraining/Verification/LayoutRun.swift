import ApusData
import ApusExperts
import ApusKernels
import ApusModels
import ApusNN
import ApusOptim
import ApusParallel
import ApusTensor

/// The runs of a comparison of layouts, on one rank or on many.
struct LayoutRun {
    let batches: [TokenBatch]
    let threads: Int
    /// Where it runs; `nil` for the processor.
    var device: (any Backend)?
    var groups: ParallelGroups?

    /// The model and its optimizer at their beginning.
    func start(_ recipe: Recipe) throws -> TrainStep {
        try TrainStep(recipe, over: groups, backend: device ?? CPUBackend(threadCount: threads))
    }

    /// The gradients of a step, from zero, with its routing recorded: those of the parameters that are here as a whole.
    func accumulate(
        _ trainStep: TrainStep, step: Int, recording run: inout LayoutReference.Run
    ) throws -> [String: [Float]] {
        let traces = traces(of: trainStep)
        run.losses.append(try accumulate(trainStep, step: step) { traces[$0] })
        run.routing.append(traces.mapValues(\.recorded))
        return Dictionary(
            try trainStep.model.store.gradientPieces().map {
                ($0.parameter.name, try trainStep.backend.floats($0.tensor))
            }
        ) { first, _ in first }
    }

    /// The gradients of a step, from zero; the loss over all ranks.
    func accumulate(
        _ trainStep: TrainStep, step: Int, routing: @escaping TrainStep.RoutingSource
    ) throws -> Float {
        trainStep.clearGradients()
        let report = RoutingReport()
        let passes = try trainStep.accumulate(
            step: step, sequenceLength: length(trainStep), report: report, trace: nil, routing: routing,
            read: reader(trainStep, step))
        let own = try passes.losses.reduce(0) { $0 + (try trainStep.backend.floats($1)[0]) }
        guard let ranks = trainStep.ranks else { return own }
        let loss = try trainStep.backend.tensor([own], Shape(1))
        return try trainStep.backend.floats(ranks.totals(loss: loss, pooled: passes.pooled, report).loss)[0]
    }

    /// `weights -= rate * gradient`.
    func descend(_ trainStep: TrainStep, rate: Float) throws {
        for group in trainStep.model.store.groups {
            for part in group.gradientParts {
                try trainStep.backend.addScaled(
                    part.heldGradients(), factor: -rate, into: group.weights[part.heldRange])
            }
        }
        guard let ranks = trainStep.ranks, ranks.configuration.zero > .none else { return }
        try ranks.groups.collectWeights(of: trainStep.model.store, backend: trainStep.backend)
    }

    /// A step of the optimizer.
    func step(_ trainStep: TrainStep, step: Int, recording run: inout LayoutReference.Run) throws {
        let traces = traces(of: trainStep)
        run.losses.append(try self.step(trainStep, step: step) { traces[$0] })
        run.routing.append(traces.mapValues(\.recorded))
    }

    /// A step of the optimizer; its loss.
    func step(_ trainStep: TrainStep, step: Int, routing: @escaping TrainStep.RoutingSource) throws -> Float {
        try trainStep(
            step: step, sequenceLength: length(trainStep),
            // The base rate: of the first steps of a warm-up nothing would be seen.
            learningRate: trainStep.configuration.optimizer.learningRate, routing: routing,
            read: reader(trainStep, step)
        ).loss
    }

    /// A trace for each pass.
    func traces(of trainStep: TrainStep) -> [Range<Int>: RoutingTrace] {
        Dictionary(uniqueKeysWithValues: trainStep.microBatches.map { ($0, RoutingTrace()) })
    }

    private func length(_ trainStep: TrainStep) -> Int {
        batches[0].targets.count / trainStep.configuration.batch
    }

    private func reader(_ trainStep: TrainStep, _ step: Int) -> TrainStep.Reader {
        let (batch, length) = (batches[step - 1], length(trainStep))
        return { batch[$0.lowerBound * length..<$0.upperBound * length] }
    }
}

extension TrainStep {
    /// The weights of parameters that are here as a whole, by name.
    func weightValues() throws -> [String: [Float]] {
        Dictionary(
            try model.store.weightPieces().map { ($0.parameter.name, try backend.floats($0.tensor)) }
        ) { first, _ in first }
    }
}
