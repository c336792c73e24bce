public import ApusCollectives
import ApusKernels
import ApusTensor

extension Tape {
    /// Starts to sum the ranks' values; every rank gets the sum.
    ///
    /// Backward: *partial* gradients are summed over the ranks too; a *replicated* one is every input's gradient as it
    /// is (the output of a row-parallel product).
    ///
    /// - Throws: ``CollectiveError``, or no memory.
    public func startAllReduce(
        _ x: Variable, downstream: DownstreamGradient, over collective: any Collective, layer: Int? = nil
    ) throws -> Exchange {
        try exchange("all-reduce", x, .reductions) {
            try collective.startAllReduce(
                x.tensor.dense(backend), into: backend.empty(x.shape, x.dtype), after: backend.stream, layer: layer)
        } mirror: { dy, backend in
            guard downstream == .partial else { return dy }
            return try collective.startAllReduce(
                dy, into: backend.empty(dy.shape, dy.dtype), after: backend.stream, layer: layer)
        }
    }

    /// A value that all ranks hold, on its way into computation that is divided among them: the value itself.
    ///
    /// Backward sums the ranks' *partial* gradients, so that every rank has the whole derivative again (the input of a
    /// column-parallel product): the dual of a *replicated* all-reduce.
    ///
    /// - Throws: in backward ``CollectiveError``, or no memory.
    public func fanOut(_ x: Variable, over collective: any Collective, layer: Int? = nil) throws -> Variable {
        try exchange("fan-out", x, nil) {
            x.tensor
        } mirror: { dy, backend in
            try collective.startAllReduce(
                dy, into: backend.empty(dy.shape, dy.dtype), after: backend.stream, layer: layer)
        }.finish()
    }
}
