public import ApusCollectives
import ApusKernels
import ApusTensor

// Shape letters: N ranks, R rows of one rank, D row width.

/// What the gradient of a value that all ranks hold means on each of them: what comes after the value decides.
public enum DownstreamGradient: Sendable {
    /// Each rank computes its own part of the loss from the value, and its gradient is that of this part: the sum
    /// over the ranks is the derivative. Data and expert parallelism.
    case partial
    /// All ranks compute the same from the value, and each one's gradient is the whole derivative already. Tensor
    /// parallelism, outside its split parts.
    case replicated
}

extension Tape {
    /// Starts to collect every rank's rows: (R, D) to (N R, D), by rank.
    ///
    /// Backward: *partial* gradients are summed over the ranks and cut into each rank's rows, a reduce-scatter; of a
    /// *replicated* gradient every rank takes its own rows, without any exchange.
    ///
    /// - Throws: ``CollectiveError``, or no memory.
    public func startAllGather(
        _ x: Variable, downstream: DownstreamGradient, over collective: any Collective, layer: Int? = nil
    ) throws -> Exchange {
        let shape = x.shape
        return try exchange("all-gather", x, .allGather) {
            let result = try backend.empty(shape.replacingFirst(with: shape[0] * collective.size), x.dtype)
            return try collective.startAllGather(
                x.tensor.dense(backend), into: result, after: backend.stream, layer: layer)
        } mirror: { dy, backend in
            guard downstream == .partial else { return dy[collective.ownRows(of: dy.shape[0])] }
            return try collective.startReduceScatter(
                dy, into: backend.empty(shape, dy.dtype), after: backend.stream, layer: layer)
        }
    }

    /// Starts to sum the ranks' values and to cut the sum into each rank's rows: (N R, D) to (R, D).
    ///
    /// Backward collects the gradients of all rows, an all-gather: each row of the sum has one owner, whose gradient is
    /// the whole derivative.
    ///
    /// - Throws: ``CollectiveError``, or no memory.
    public func startReduceScatter(
        _ x: Variable, over collective: any Collective, layer: Int? = nil
    ) throws -> Exchange {
        let shape = x.shape
        let part = shape.replacingFirst(with: collective.ownRows(of: shape[0]).count)
        return try exchange("reduce-scatter", x, .reductions) {
            try collective.startReduceScatter(
                x.tensor.dense(backend), into: backend.empty(part, x.dtype), after: backend.stream, layer: layer)
        } mirror: { dy, backend in
            try collective.startAllGather(
                dy, into: backend.empty(shape, dy.dtype), after: backend.stream, layer: layer)
        }
    }

    /// This rank's rows of a value that all ranks hold: (N R, D) to (R, D), without any exchange.
    ///
    /// Backward is an all-gather, so that every rank has the whole value's gradient again: the dual of a
    /// *replicated* all-gather. Dropping duplicate tokens before an exchange is this op (DeepSpeed-TED section 5.1).
    ///
    /// - Throws: in backward ``CollectiveError``, or no memory.
    public func takeOwnRows(_ x: Variable, over collective: any Collective, layer: Int? = nil) throws -> Variable {
        let shape = x.shape
        let own = x.tensor[collective.ownRows(of: shape[0])]
        return try exchange("own rows", x, nil) {
            own
        } mirror: { dy, backend in
            try collective.startAllGather(
                dy, into: backend.empty(shape, dy.dtype), after: backend.stream, layer: layer)
        }.finish()
    }
}

extension Collective {
    fileprivate func ownRows(of rows: Int) -> Range<Int> {
        precondition(rows % size == 0, "\(rows) rows over \(size) ranks")
        return rows / size * rank..<rows / size * (rank + 1)
    }
}
