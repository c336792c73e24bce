import ApusCollectives
import ApusParallel
import ApusTensor

/// The ranks of a run: what they were started with is the same, they decide together, and what their exchanges cost is
/// counted.
final class RunRanks {
    /// All of them; operations on it and its parts are counted.
    let world: any Collective
    /// The layout and its communicators; `nil` for one rank.
    let groups: ParallelGroups?
    /// What this rank has asked of its communicators since the last step's end.
    let ledger = CollectiveLedger()
    private var stragglers: StepStragglers
    private var stepBegin = HostClock.nanoseconds

    /// What ranks know of each other at the end of a step.
    struct StepNews {
        /// Whether any of them was asked to stop: a signal reaches them at different times.
        let isStopped: Bool
        /// Whether all of them have written what they were saving.
        let isWritten: Bool
        /// This rank's exchanges in the step; the times of a GPU's are known when the step is over.
        let collectives: CollectiveLedger
        /// What there is to say of ranks that have become slow, or are no longer: nothing on GPUs, where nobody knows how
        /// long which of them waited.
        let lines: [String]
    }

    /// The ranks of `world` in the layout of `recipe`, which all of them have.
    ///
    /// - Throws: ``RankDifference``, ``LayoutError``, ``CollectiveError``.
    init(_ recipe: Recipe, _ world: any Collective) throws {
        stragglers = StepStragglers(ranks: world.size)
        guard world.size > 1 else {
            self.world = world
            _ = try recipe.layout(ranks: 1)
            groups = nil
            return
        }
        try world.requireSame(Program.identity, what: "program")
        try world.requireSame(recipe.resolvedYAML(), what: "recipe")
        let counted = CountingCollective(world, in: ledger)
        self.world = counted
        groups = try recipe.parallel.groups(recipe.layout(ranks: world.size), world: counted)
    }

    /// Whether this rank prints and writes what is not a checkpoint.
    var isFirst: Bool { world.rank == 0 }

    /// Begins a step: what was exchanged before is none of its cost.
    func beginStep() {
        ledger.clear()
        stepBegin = HostClock.nanoseconds
    }

    /// Ends step `step`, on every rank: one small exchange, in which they also learn who waits for whom.
    ///
    /// - Throws: ``CollectiveError``.
    func endStep(_ step: Int, isStopped: Bool, isWritten: Bool) throws -> StepNews {
        let collectives = ledger.take()
        let seconds = Double(HostClock.nanoseconds - stepBegin) * 1e-9
        guard world.size > 1 else {
            return StepNews(isStopped: isStopped, isWritten: isWritten, collectives: collectives, lines: [])
        }
        let waited = OperationTotals(collectives).exposedSeconds.map { Int($0 * 1e9) }
        let all = try world.collected([isStopped ? 1 : 0, isWritten ? 1 : 0, Int(seconds * 1e9), waited ?? -1])
        let times = all.filter { $0[3] >= 0 }
            .map { StepTime(seconds: Double($0[2]) * 1e-9, waited: Double($0[3]) * 1e-9) }
        return StepNews(
            isStopped: all.contains { $0[0] > 0 }, isWritten: all.allSatisfy { $0[1] > 0 }, collectives: collectives,
            lines: times.count == all.count ? stragglers.note(step: step, times) : [])
    }
}
