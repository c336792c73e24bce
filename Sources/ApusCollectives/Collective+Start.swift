public import ApusTensor

// The event-returning forms. Each returns its output with ``Tensor/ready`` set to the event that completes it.

extension Collective {
    /// Starts the reduction of every rank's `input` into `output`, which may be `input` itself.
    ///
    /// - Throws: ``CollectiveError``.
    public func startAllReduce(
        _ input: Tensor, _ reduction: Reduction = .sum, into output: Tensor, after stream: Stream = .cpu,
        layer: Int? = nil
    ) throws -> Tensor {
        try completing(output, .allReduce(input, reduction, into: output), stream, layer)
    }

    /// Starts the reduction of every rank's `input` (N r, ...), of which this rank gets part `rank`, (r, ...).
    ///
    /// - Throws: ``CollectiveError``.
    public func startReduceScatter(
        _ input: Tensor, _ reduction: Reduction = .sum, into output: Tensor, after stream: Stream = .cpu,
        layer: Int? = nil
    ) throws -> Tensor {
        try completing(output, .reduceScatter(input, reduction, into: output), stream, layer)
    }

    /// Starts to collect every rank's `input` (r, ...) in `output` (N r, ...).
    ///
    /// - Throws: ``CollectiveError``.
    public func startAllGather(
        _ input: Tensor, into output: Tensor, after stream: Stream = .cpu, layer: Int? = nil
    ) throws -> Tensor {
        try completing(output, .allGather(input, into: output), stream, layer)
    }

    /// Starts to overwrite `tensor` with the root's contents.
    ///
    /// - Throws: ``CollectiveError``.
    public func startBroadcast(
        _ tensor: Tensor, root: Int, after stream: Stream = .cpu, layer: Int? = nil
    ) throws -> Tensor {
        try completing(tensor, .broadcast(tensor, root: root), stream, layer)
    }

    /// Starts to send part `j` of `input` to rank `j`, which puts it at this rank's place in `output`.
    ///
    /// - Parameter splits: Rows of each part; `nil` for equal parts.
    /// - Throws: ``CollectiveError``.
    public func startAllToAll(
        _ input: Tensor, into output: Tensor, splits: RowSplits? = nil, after stream: Stream = .cpu, layer: Int? = nil
    ) throws -> Tensor {
        try completing(output, .allToAll(input, into: output, splits), stream, layer)
    }

    /// Starts to send `tensor` to `rank`; it may be written again once the event has happened.
    ///
    /// - Throws: ``CollectiveError``.
    public func startSend(
        _ tensor: Tensor, to rank: Int, after stream: Stream = .cpu, layer: Int? = nil
    ) throws -> Event {
        try start(.send(tensor, to: rank), after: stream, layer: layer)
    }

    /// Starts to overwrite `tensor` with what `rank` sends.
    ///
    /// - Throws: ``CollectiveError``.
    public func startReceive(
        _ tensor: Tensor, from rank: Int, after stream: Stream = .cpu, layer: Int? = nil
    ) throws -> Tensor {
        try completing(tensor, .receive(tensor, from: rank), stream, layer)
    }

    /// Starts a barrier: its event happens when every rank has started it.
    ///
    /// - Throws: ``CollectiveError``.
    public func startBarrier(after stream: Stream = .cpu, layer: Int? = nil) throws -> Event {
        try start(.barrier, after: stream, layer: layer)
    }

    /// Starts to tell every rank how many rows it will get, early, so that the uneven all-to-all that follows does not
    /// wait for the numbers.
    ///
    /// - Parameters:
    ///   - counts: (N k) `i32`: k numbers for each rank.
    ///   - received: (N k) `i32` that the numbers from each rank are written to.
    /// - Throws: ``CollectiveError``.
    public func startCountExchange(
        _ counts: Tensor, into received: Tensor, after stream: Stream = .cpu, layer: Int? = nil
    ) throws -> PendingCounts {
        precondition(counts.dtype == .i32, "counts are i32")
        return PendingCounts(tensor: try startAllToAll(counts, into: received, after: stream, layer: layer))
    }

    private func completing(
        _ output: Tensor, _ operation: CollectiveOperation, _ stream: Stream, _ layer: Int?
    ) throws -> Tensor {
        var result = output
        result.ready = try start(operation, after: stream, layer: layer)
        return result
    }
}

/// Counts from every rank that are still on their way to the host.
public struct PendingCounts: Sendable {
    /// (N k) `i32`, to be read on the device after ``Tensor/ready``.
    public let tensor: Tensor

    /// Waits for the counts and returns them, k for each rank in turn.
    ///
    /// - Throws: ``CollectiveError``.
    public func wait() throws -> [Int] {
        try tensor.ready?.wait()
        return tensor.array(of: Int32.self).map(Int.init)
    }
}
