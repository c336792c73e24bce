import ApusCollectives
import ApusKernels
import ApusModels
import ApusNN
public import ApusParallel
import ApusTraining

/// The state of one rank under one ZeRO stage: by the paper's closed form, by the formula with what a program adds, and
/// as it was allocated.
public struct StateRow: Sendable {
    /// What ranks divide.
    public let zero: ZeROStage
    /// ``TEDMemory/paper(nonExpert:expert:_:precision:zero:)``
    public let paper: StateBytes
    /// ``TEDMemory/whole``
    public let formula: StateBytes
    /// ``TEDMemory/allocatedWhole``
    public let blocks: StateBytes
    /// What was allocated.
    public let measured: TEDState

    /// Builds the bench's model, as one of the ranks of `world`.
    ///
    /// - Throws: what the layout and the model throw.
    static func measure(
        _ bench: TEDBench, _ zero: ZeROStage, over world: any Collective, backend: any Backend
    ) throws -> StateRow {
        var bench = bench
        bench.zero = zero
        let recipe = bench.recipe
        let memory = TEDMemory(recipe, on: try recipe.layout(ranks: world.size), rank: world.rank)
        let counts = recipe.model.parameterCounts()
        return StateRow(
            zero: zero,
            paper: TEDMemory.paper(
                nonExpert: counts.total - counts.experts, expert: counts.experts,
                TEDMemory.Degrees(ranks: world.size, tensor: bench.tensor, expert: bench.expert),
                precision: bench.precision, zero: zero),
            formula: memory.whole, blocks: memory.allocatedWhole,
            measured: try TEDState.measure(recipe, over: world, backend: backend))
    }
}
