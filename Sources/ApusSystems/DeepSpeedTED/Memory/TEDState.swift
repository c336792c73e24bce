public import ApusCollectives
public import ApusKernels
import ApusModels
import ApusNN
import ApusOptim
import ApusParallel
public import ApusTensor
public import ApusTraining

/// The bytes of training state that a rank was really given, by its allocator's account and by its tensors' sizes.
public struct TEDState: Sendable, Equatable {
    /// By the allocator, with every gradient in memory.
    public let whole: StateBytes
    /// By the allocator, after the gradients' sums were divided.
    public let reduced: StateBytes
    /// By the sizes of the tensors, without what the allocator rounds up; every gradient in memory.
    public let tensors: StateBytes

    /// Builds the rank's part of a recipe's model and optimizer, and its gradients. All ranks of `world` call it.
    ///
    /// - Throws: what the layout and the model throw.
    public static func measure(
        _ recipe: Recipe, over world: any Collective, backend: any Backend
    ) throws -> TEDState {
        let groups = try recipe.parallel.groups(recipe.layout(ranks: world.size), world: world)
        let before = StateBytes(backend.allocator.statistics)
        let trainStep = try TrainStep(recipe, over: groups, backend: backend)
        let store = trainStep.model.store
        for part in store.gradientParts { _ = try part.gradients() }
        let whole = StateBytes(backend.allocator.statistics)
        let reduction = GradientReduction(store, over: groups, stage: recipe.parallel.zero, backend: backend)
        reduction.begin()
        try reduction.finish()
        let reduced = StateBytes(backend.allocator.statistics)
        let states = trainStep.optimizer.states.flatMap { [$0.first, $0.second] + ($0.master.map { [$0] } ?? []) }
        let tensors = StateBytes(
            parameters: store.groups.reduce(0) { $0 + $1.weights.byteCount },
            gradients: store.gradientParts.reduce(0) { $0 + $1.dtype.byteCount(elements: $1.range.count) },
            optimizerState: states.reduce(0) { $0 + $1.byteCount })
        store.releaseGradients()
        return TEDState(whole: whole - before, reduced: reduced - before, tensors: tensors)
    }
}

extension StateBytes {
    /// What an allocator counts as live.
    public init(_ statistics: MemoryStatistics) {
        self.init(
            parameters: statistics[.parameters], gradients: statistics[.gradients],
            optimizerState: statistics[.optimizerState])
    }

    static func - (left: StateBytes, right: StateBytes) -> StateBytes {
        StateBytes(
            parameters: left.parameters - right.parameters, gradients: left.gradients - right.gradients,
            optimizerState: left.optimizerState - right.optimizerState)
    }
}

extension Tensor {
    fileprivate var byteCount: Int { dtype.byteCount(elements: count) }
}
