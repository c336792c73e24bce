public import ApusTensor

// The blocking forms: start, then wait.

extension Collective {
    /// Reduces every rank's `input` into `output`, which may be `input` itself.
    ///
    /// - Throws: ``CollectiveError``.
    public func allReduce(
        _ input: Tensor, _ reduction: Reduction = .sum, into output: Tensor, layer: Int? = nil
    ) throws {
        try perform(.allReduce(input, reduction, into: output), layer)
    }

    /// Reduces every rank's `input` (N r, ...); this rank gets part `rank`, (r, ...).
    ///
    /// - Throws: ``CollectiveError``.
    public func reduceScatter(
        _ input: Tensor, _ reduction: Reduction = .sum, into output: Tensor, layer: Int? = nil
    ) throws {
        try perform(.reduceScatter(input, reduction, into: output), layer)
    }

    /// Collects every rank's `input` (r, ...) in `output` (N r, ...).
    ///
    /// - Throws: ``CollectiveError``.
    public func allGather(_ input: Tensor, into output: Tensor, layer: Int? = nil) throws {
        try perform(.allGather(input, into: output), layer)
    }

    /// Overwrites `tensor` with the root's contents.
    ///
    /// - Throws: ``CollectiveError``.
    public func broadcast(_ tensor: Tensor, root: Int, layer: Int? = nil) throws {
        try perform(.broadcast(tensor, root: root), layer)
    }

    /// Sends part `j` of `input` to rank `j`, which puts it at this rank's place in `output`.
    ///
    /// - Parameter splits: Rows of each part; `nil` for equal parts.
    /// - Throws: ``CollectiveError``.
    public func allToAll(
        _ input: Tensor, into output: Tensor, splits: RowSplits? = nil, layer: Int? = nil
    ) throws {
        try perform(.allToAll(input, into: output, splits), layer)
    }

    /// Sends `tensor` to `rank`.
    ///
    /// - Throws: ``CollectiveError``.
    public func send(_ tensor: Tensor, to rank: Int, layer: Int? = nil) throws {
        try perform(.send(tensor, to: rank), layer)
    }

    /// Overwrites `tensor` with what `rank` sends.
    ///
    /// - Throws: ``CollectiveError``.
    public func receive(_ tensor: Tensor, from rank: Int, layer: Int? = nil) throws {
        try perform(.receive(tensor, from: rank), layer)
    }

    /// Waits until every rank has come.
    ///
    /// - Throws: ``CollectiveError``.
    public func barrier(layer: Int? = nil) throws { try perform(.barrier, layer) }

    private func perform(_ operation: CollectiveOperation, _ layer: Int?) throws {
        try start(operation, after: .cpu, layer: layer).wait()
    }
}
