import ApusCollectives
import ApusExperts
import ApusKernels
import ApusModels
public import ApusParallel
import ApusTensor

/// The ranks of a run, as its training step sees them.
public final class StepRanks {
    /// The layout and its communicators.
    public let groups: ParallelGroups
    /// How the run is divided.
    public let configuration: ParallelConfiguration
    let reduction: GradientReduction
    let model: Transformer
    let backend: any Backend

    /// The ranks of `groups`, for a step over the part `model` of the model.
    init(
        _ groups: ParallelGroups, _ configuration: ParallelConfiguration, model: Transformer, backend: any Backend
    ) {
        self.groups = groups
        self.configuration = configuration
        self.model = model
        self.backend = backend
        reduction = GradientReduction(model.store, over: groups, stage: configuration.zero, backend: backend)
    }

    /// Whether the gradients are to be added after pass `pass` of `passes`: at the end, or, where their sums are divided,
    /// each time.
    func reduces(after pass: Int, of passes: Int) -> Bool {
        pass == passes - 1 || configuration.zero == .gradients
    }

    /// The sum over the ranks that hold other sequences.
    ///
    /// - Throws: ``CollectiveError``.
    func sumOverBatch(_ count: Int) throws -> Int {
        guard groups.data.size > 1 else { return count }
        return try groups.data.sum([count])[0]
    }

    /// What all ranks came to, which every rank is given.
    ///
    /// Every number is counted once: of the ranks of a tensor group, which compute the same losses and loads, by the
    /// first, and a gradient's square by the one whose share it is.
    ///
    /// - Throws: ``CollectiveError``, ``TensorError``.
    func totals(
        loss: Tensor, divergence: Tensor? = nil, pooled: [Tensor], _ report: RoutingReport
    ) throws -> StepTotals {
        let isCounted = groups.place.tensor == 0
        let layers = report.layers
        let widths = [2, divergence == nil ? 0 : 1, pooled.count] + layers.map { $0.rows.count + $0.losses.count }
        let numbers = try backend.zeros(Shape(widths.reduce(0, +)), .f32)
        let loads = try backend.tensor(
            Array(repeating: Int32(0), count: layers.reduce(0) { $0 + $1.rows.count }),
            Shape(layers.reduce(0) { $0 + $1.rows.count }))
        var next = (number: 0, load: 0)
        func take(_ count: Int) -> Tensor {
            defer { next.number += count }
            return numbers[next.number..<next.number + count]
        }
        let totals = StepTotals(
            loss: take(1), sumOfSquares: take(1), divergence: divergence.map { _ in take(1) },
            pooled: pooled.map { _ in take(1) },
            layers: layers.map { layer in
                let count = layer.rows.count
                defer { next.load += count }
                let rows = loads[next.load..<next.load + count]
                return layer.replacing([take(count).reshaped(1, count), rows] + layer.losses.map { _ in take(1) })
            })
        let squares = try groups.countedGradients(of: model.store)
        if !squares.isEmpty { try backend.gradientSquares(squares, into: totals.sumOfSquares) }
        if isCounted {
            try backend.copy(loss, into: totals.loss)
            if let divergence, let total = totals.divergence { try backend.copy(divergence, into: total) }
            for (value, total) in zip(pooled, totals.pooled) {
                // All ranks have the value of the whole.
                try backend.scale(value, by: 1 / Float(groups.data.size), into: total)
            }
            for (layer, total) in zip(layers, totals.layers) {
                try backend.addColumnSums(layer.choices, into: total.choices.reshaped(total.choices.count))
                try backend.copy(layer.rows, into: total.rows)
                for (value, total) in zip(layer.tensors.dropFirst(2), total.tensors.dropFirst(2)) {
                    try backend.copy(value, into: total)
                }
            }
        }
        let sums = try [numbers, loads].filter { $0.count > 0 }.map {
            try groups.world.startAllReduce($0, into: $0, after: backend.stream)
        }
        for sum in sums { _ = try backend.arrived(sum) }
        return totals
    }
}

extension TrainStep {
    /// What the lowest rank says that says anything, on all ranks; without others, `text`.
    func agree(_ text: String?) throws -> String? { try ranks.map { try $0.groups.world.first(text) } ?? text }
}

/// The numbers of a step over all ranks.
struct StepTotals {
    /// (1) `f32`: the loss of the global batch.
    let loss: Tensor
    /// (1) `f32`: the sum of squares of every gradient.
    let sumOfSquares: Tensor
    /// (1) `f32`: the divergence from the teacher's distributions, where it was asked.
    let divergence: Tensor?
    /// (1) `f32` each: the pooled balance losses.
    let pooled: [Tensor]
    /// The layers' reports: choices (1, E), rows (E), losses.
    let layers: [RoutingReport.Layer]
}
