import ApusCollectives
import ApusExperts
import ApusKernels
import ApusModels
import ApusTraining

/// One combination of mechanisms, run: what was expected of a mixture's block and of the whole step, and what was sent.
public struct TrafficRow: Sendable {
    /// The mechanisms.
    public let switches: TEDSwitches
    /// Of the last block with a mixture, attention included, on this rank.
    public let block: Compared
    /// Of the whole step, on this rank.
    public let step: Compared
    /// Whether every layer of every rank sent what was expected.
    public let agreesOnAllRanks: Bool
    /// Seconds of a step, the median; `nil` when it was not timed.
    public let seconds: Double?

    /// Two accounts of the same.
    public struct Compared: Sendable {
        /// By the formula.
        public let expected: Traffic
        /// By the ledger.
        public let measured: Traffic
    }

    /// Runs the bench with `switches`, as one of the ranks of `world`.
    ///
    /// - Throws: what the layout and the step throw; ``TEDError``.
    static func measure(
        _ bench: TEDBench, _ switches: TEDSwitches, over world: any Collective, backend: any Backend, timed: Int
    ) throws -> TrafficRow {
        let recipe = bench.with(switches).recipe
        let expected = try TEDTraffic(recipe, on: recipe.layout(ranks: world.size))
        let step = try TEDStep.run(recipe, over: world, backend: backend, timed: timed)
        let blocks = recipe.model.feedForward.indices.map { layer in
            let isPadded = recipe.model.moe(layer: layer)?.bank == .padded
            return Compared(
                expected: expected.block(layer, loads: isPadded ? nil : step.loads[layer]),
                measured: step.layers[layer]?.only(.tensor, .expert) ?? Traffic())
        }
        let whole = Compared(
            expected: expected.step(rank: world.rank, loads: step.loads),
            measured: step.total.only(.tensor, .expert, .data, .expertData))
        let differing = (blocks + [whole]).count { $0.expected != $0.measured }
        let sorted = step.seconds.sorted()
        return TrafficRow(
            switches: switches, block: blocks.last ?? whole, step: whole,
            agreesOnAllRanks: try world.sum([differing])[0] == 0,
            seconds: sorted.isEmpty ? nil : sorted[sorted.count / 2])
    }
}
