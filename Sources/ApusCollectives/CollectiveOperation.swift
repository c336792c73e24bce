public import ApusTensor

/// How values of several ranks become one.
public enum Reduction: String, Sendable {
    /// Their sum; `bf16` adds in `f32` and rounds once where the implementation can.
    case sum
    /// The largest of them.
    case max
}

/// How many rows a rank sends to and receives from each rank of an uneven all-to-all, by rank.
public struct RowSplits: Sendable, Equatable {
    /// Rows for each rank, in the order in which they lie in the input.
    public let sent: [Int]
    /// Rows from each rank, in the order in which they will lie in the output.
    public let received: [Int]

    /// Splits with one entry for each rank, zeros allowed.
    public init(sent: [Int], received: [Int]) {
        precondition(sent.count == received.count && (sent + received).allSatisfy { $0 >= 0 })
        self.sent = sent
        self.received = received
    }

    /// The splits of the exchange that brings every row back.
    public var mirrored: RowSplits { RowSplits(sent: received, received: sent) }
}

/// One operation of a communicator with the tensors it reads and writes.
///
/// All tensors are dense. Rows are entries of the first dimension; N is the communicator's size. Reductions take `f32`,
/// `bf16` and `i32`; the rest moves bytes of any type.
public enum CollectiveOperation: Sendable {
    /// The reduction of all inputs, on every rank. The output may be the input.
    case allReduce(Tensor, Reduction, into: Tensor)
    /// Part `rank` of the reduction of all inputs: (N r, ...) to (r, ...).
    case reduceScatter(Tensor, Reduction, into: Tensor)
    /// All inputs one after the other by rank: (r, ...) to (N r, ...).
    case allGather(Tensor, into: Tensor)
    /// The root's contents, on every rank.
    case broadcast(Tensor, root: Int)
    /// Part `j` of rank `i`'s input becomes part `i` of rank `j`'s output: parts of equal size without splits. With
    /// splits the tensors may be longer than the rows named; what lies behind is neither read nor written.
    case allToAll(Tensor, into: Tensor, RowSplits?)
    /// Hands the contents to another rank, which receives them.
    case send(Tensor, to: Int)
    /// Takes what another rank sends. Between two ranks, sends and receives match in order.
    case receive(Tensor, from: Int)
    /// Nothing but that every rank has come.
    case barrier

    /// The tensor that is read.
    public var input: Tensor? {
        switch self {
        case .allReduce(let input, _, _), .reduceScatter(let input, _, _), .allGather(let input, _),
            .broadcast(let input, _), .allToAll(let input, _, _), .send(let input, _):
            input
        case .receive, .barrier: nil
        }
    }

    /// The tensor that is written.
    public var output: Tensor? {
        switch self {
        case .allReduce(_, _, let output), .reduceScatter(_, _, let output), .allGather(_, let output),
            .broadcast(let output, _), .allToAll(_, let output, _), .receive(let output, _):
            output
        case .send, .barrier: nil
        }
    }

    /// Bytes that this rank contributes; for an all-gather, those that it receives.
    public var byteCount: Int {
        switch self {
        case .allGather(_, let output): output.dtype.byteCount(elements: output.count)
        case .allToAll(let input, _, let splits?):
            input.dtype.byteCount(elements: splits.sent.reduce(0, +) * input.rowCount)
        default: (input ?? output).map { $0.dtype.byteCount(elements: $0.count) } ?? 0
        }
    }

    /// Traps unless the tensors fit each other and a communicator of `size` ranks.
    package func check(rank: Int, size: Int) {
        for tensor in [input, output].compactMap(\.self) {
            precondition(tensor.isContiguous, "a collective takes dense tensors")
        }
        if let input, let output { precondition(input.dtype == output.dtype, "\(input.dtype) into \(output.dtype)") }
        switch self {
        case .allReduce(let input, _, let output):
            precondition(input.dtype != .u8, "u8 is no type for arithmetic")
            precondition(input.count == output.count, "\(input.shape) into \(output.shape)")
        case .reduceScatter(let input, _, let output):
            precondition(input.dtype != .u8, "u8 is no type for arithmetic")
            precondition(input.count == output.count * size, "\(input.shape) over \(size) ranks into \(output.shape)")
        case .allGather(let input, let output):
            precondition(input.count * size == output.count, "\(input.shape) of \(size) ranks into \(output.shape)")
        case .allToAll(let input, let output, nil):
            precondition(
                input.count == output.count && input.count % size == 0,
                "\(input.shape) over \(size) ranks into \(output.shape)")
        case .allToAll(let input, let output, let splits?):
            precondition(splits.sent.count == size, "\(splits.sent.count) splits over \(size) ranks")
            precondition(input.shape.rank > 0 && output.shape.rank > 0 && input.rowCount == output.rowCount)
            precondition(splits.sent.reduce(0, +) <= input.shape[0], "\(splits.sent) rows of \(input.shape)")
            precondition(
                splits.received.reduce(0, +) <= output.shape[0], "\(splits.received) rows into \(output.shape)")
        case .broadcast(_, let peer), .send(_, let peer), .receive(_, let peer):
            precondition((0..<size).contains(peer), "rank \(peer) of \(size)")
            if case .broadcast = self { return }
            precondition(peer != rank, "a rank does not send to itself")
        case .barrier: break
        }
    }

    /// Refuses tensors that the host cannot read; `communicator` is for the message.
    func checkHostMemory(_ communicator: String) throws(CollectiveError) {
        for tensor in [input, output].compactMap(\.self) where tensor.device != .cpu {
            throw .notHostMemory(
                communicator: communicator, operation: OperationSignature(self), device: tensor.device)
        }
    }

    /// What an implementation in host memory does before it begins an operation on `communicator`: checks it, and waits for
    /// tensors that other work is still completing.
    ///
    /// - Returns: The two ranks that the operation is between; `nil` for an operation of all.
    /// - Throws: ``CollectiveError/notHostMemory(communicator:operation:device:)``, and what the other work ended with.
    func admitted(to communicator: any Collective) throws -> Channel.Pair? {
        check(rank: communicator.rank, size: communicator.size)
        try checkHostMemory(communicator.name)
        // The CPU's stream runs inline, so waiting here is waiting in the order of the stream.
        try input?.ready?.wait()
        try output?.ready?.wait()
        return pair(of: communicator.rank)
    }

    /// The two ranks that it is between when `rank` calls it; `nil` for an operation of all.
    func pair(of rank: Int) -> Channel.Pair? {
        switch self {
        case .send(_, let target): Channel.Pair(source: rank, target: target)
        case .receive(_, let source): Channel.Pair(source: source, target: rank)
        default: nil
        }
    }
}
