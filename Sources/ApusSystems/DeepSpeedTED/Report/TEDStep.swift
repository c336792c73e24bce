public import ApusCollectives
import ApusData
import ApusExperts
public import ApusKernels
import ApusModels
import ApusNN
import ApusParallel
public import ApusTensor
public import ApusTraining

// Shape letters: T tokens, K choices per token.

/// What one rank did in a training step that was really run: its collectives layer by layer, the rows that its experts
/// got, its memory and its time.
public struct TEDStep: Sendable {
    /// The rank.
    public let rank: Int
    /// What each layer sent.
    public let layers: [Int: Traffic]
    /// What belongs to no layer: embedding and head, and of gradients and weights those of no layer.
    public let rest: Traffic
    /// The rows of each mixture in each pass, counted from the router's choices on all ranks of its expert group.
    public let loads: [Int: [RoutedLoad]]
    /// Peaks of a step.
    public let memory: MemoryStatistics
    /// Seconds of each timed step.
    public let seconds: [Double]

    /// All that was sent.
    public var total: Traffic { layers.values.reduce(rest, +) }

    /// Runs a step, and then `timed` more, as one of the ranks of `world`, all of which call it.
    ///
    /// - Throws: what the layout and the step throw.
    public static func run(
        _ recipe: Recipe, over world: any Collective, backend: any Backend, timed: Int = 0
    ) throws -> TEDStep {
        let layout = try recipe.layout(ranks: world.size)
        let ledger = CollectiveLedger()
        let groups = try recipe.parallel.groups(layout, world: CountingCollective(world, in: ledger))
        let trainStep = try TrainStep(recipe, over: groups, backend: backend)
        defer { trainStep.model.store.releaseGradients() }
        let choices = RecordedChoices()
        ledger.clear()
        backend.allocator.resetPeaks()
        try trainStep.take(1, recipe) { choices.trace(of: $0) }
        let memory = backend.allocator.statistics
        let layers = Dictionary(
            uniqueKeysWithValues: recipe.model.feedForward.indices.map { ($0, Traffic(ledger, layer: $0)) })
        let rest = Traffic(ledger, layer: nil)
        let loads = try choices.loads(of: recipe, over: groups, backend)
        var seconds: [Double] = []
        for step in 0..<timed {
            try world.barrier()
            let begin = ContinuousClock.now
            try trainStep.take(2 + step, recipe, routing: nil)
            try world.barrier()
            let elapsed = (ContinuousClock.now - begin).components
            seconds.append(Double(elapsed.seconds) + Double(elapsed.attoseconds) * 1e-18)
        }
        return TEDStep(rank: world.rank, layers: layers, rest: rest, loads: loads, memory: memory, seconds: seconds)
    }

    /// The same on ranks that are threads of this process, each with one thread of its own.
    ///
    /// - Parameter memoryLimit: Most bytes of each rank.
    public static func inProcess(
        _ recipe: Recipe, ranks: Int, memoryLimit: Int? = nil, timed: Int = 0
    ) throws -> [TEDStep] {
        try InProcess.run(ranks: ranks) { world in
            let backend = CPUBackend(threadCount: 1, memoryLimit: memoryLimit)
            // Whoever runs many recipes one after the other needs the memory of one at a time.
            defer { backend.allocator.releaseCache() }
            return try run(recipe, over: world, backend: backend, timed: timed)
        }
    }
}

extension TrainStep {
    /// Takes a step on tokens that follow from its number.
    fileprivate func take(_ step: Int, _ recipe: Recipe, routing: RoutingSource?) throws {
        let length = recipe.data.sequenceLength
        let count = recipe.training.batch * length
        let stream = RandomStream(seed: UInt64(step), purpose: .dataOrder)
        let tokens = (0...count).map { Int32(stream.word(at: UInt64($0)) % UInt32(recipe.model.vocabulary)) }
        let batch = TokenBatch(inputs: Array(tokens.dropLast()), targets: Array(tokens.dropFirst()))
        _ = try self(step: step, sequenceLength: length, learningRate: 1e-3, routing: routing) {
            batch[$0.lowerBound * length..<$0.upperBound * length]
        }
    }
}

/// The routing of a rank's passes, recorded as they run.
private final class RecordedChoices {
    private var traces: [Range<Int>: RoutingTrace] = [:]

    func trace(of sequences: Range<Int>) -> RoutingTrace {
        let trace = traces[sequences] ?? RoutingTrace()
        traces[sequences] = trace
        return trace
    }

    /// The rows of each mixture and pass. Every rank takes part.
    func loads(
        of recipe: Recipe, over groups: ParallelGroups, _ backend: any Backend
    ) throws -> [Int: [RoutedLoad]] {
        let tensor = groups.layout.tensor
        // Where all experts are here, no row is sent and no duplicate dropped.
        let isLocal = groups.layout.expertDegrees == [1]
        let part =
            recipe.parallel.dropsDuplicates && tensor > 1 && !isLocal
            ? RoutedLoad.Part(index: groups.place.tensor, count: tensor) : nil
        let passes = traces.sorted { $0.key.lowerBound < $1.key.lowerBound }.map(\.value)
        var loads: [Int: [RoutedLoad]] = [:]
        for layer in recipe.model.feedForward.indices {
            guard let moe = recipe.model.moe(layer: layer) else { continue }
            let group = groups.expert(layer: layer)
            loads[layer] = try passes.compactMap { trace in
                guard let decision = trace[layer] else { return nil }
                if decision.isPadded {
                    return .padded(
                        capacity: decision.capacities.reduce(0, +), experts: moe.experts, expertDegree: group.size,
                        parts: part?.count ?? 1)
                }
                let own = try backend.array(decision.kept, of: Int32.self)
                return .chosen(
                    try group.collected(own.map(Int.init)).map { $0.map(Int32.init) }, perToken: moe.choices,
                    experts: moe.experts, place: group.rank, part: part)
            }
        }
        return loads
    }
}
