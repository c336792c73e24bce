import ApusCollectives
import ApusNN
import ApusTensor

// Shape letters: R routed rows, D model width, F expert width, P ranks of a tensor group.

/// The way of routed rows into experts that are cut over a tensor-parallel group, and of partial results out of them.
///
/// | | into the experts | adjoint | out of them | adjoint |
/// |---|---|---|---|---|
/// | every rank has all rows | the rows | all-reduce | all-reduce | the gradient |
/// | each rank has a part, fused | all-gather | reduce-scatter | reduce-scatter | all-gather |
/// | each rank has a part, not fused | all-gather | all-reduce, own part | all-reduce, own part | all-gather |
struct TensorBridge {
    /// The tensor-parallel group.
    let collective: any Collective
    /// Whether each rank has a part of the rows.
    let isDivided: Bool
    /// Whether a sum of which a part is wanted is one reduce-scatter.
    let fusesReduceScatter: Bool
    /// For messages.
    let layer: Int?

    /// (R, D), or each rank's (R / P, D), to the (R, D) that every rank's slice of the experts reads.
    func enter(_ rows: Variable, on tape: Tape) throws -> Variable {
        guard isDivided else { return try tape.fanOut(rows, over: collective, layer: layer) }
        let downstream: DownstreamGradient = fusesReduceScatter ? .partial : .replicated
        let all = try tape.startAllGather(rows, downstream: downstream, over: collective, layer: layer).finish()
        return fusesReduceScatter ? all : try tape.fanOut(all, over: collective, layer: layer)
    }

    /// The same of rows that no gradient flows back from.
    func gather(_ rows: Variable, on tape: Tape) throws -> Variable {
        guard isDivided else { return rows }
        return try tape.startAllGather(rows, downstream: .replicated, over: collective, layer: layer).finish()
    }

    /// Sums every rank's partial results (R, D), and leaves each rank what it brought.
    func leave(_ results: Variable, on tape: Tape) throws -> Variable {
        if isDivided && fusesReduceScatter {
            return try tape.startReduceScatter(results, over: collective, layer: layer).finish()
        }
        let sum = try tape.startAllReduce(results, downstream: .replicated, over: collective, layer: layer).finish()
        return isDivided ? try tape.takeOwnRows(sum, over: collective, layer: layer) : sum
    }
}
