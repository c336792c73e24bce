public import ApusTensor

/// Where the tensors of checked operations are, unless in host memory.
public struct TensorPlace {
    /// Copies a host tensor there.
    let put: (Tensor) throws -> Tensor
    /// Copies a tensor back, and waits for it.
    let fetch: (Tensor) throws -> Tensor
    /// The stream of that place.
    let stream: Stream
    /// Whether sums are those of the order of ranks, to the bit.
    let addsInRankOrder: Bool

    /// A place that `put` copies host tensors to, and `fetch` back from.
    public init(
        stream: Stream, addsInRankOrder: Bool, put: @escaping (Tensor) throws -> Tensor,
        fetch: @escaping (Tensor) throws -> Tensor
    ) {
        self.stream = stream
        self.addsInRankOrder = addsInRankOrder
        self.put = put
        self.fetch = fetch
    }

    /// Host memory itself.
    static var host: TensorPlace { TensorPlace(stream: .cpu, addsInRankOrder: true, put: { $0 }, fetch: { $0 }) }

    /// The operations on copies of their tensors, of which there is one for each, and the copy of `output`.
    func moved(
        _ operations: [CollectiveOperation], _ output: Tensor?
    ) throws -> (operations: [CollectiveOperation], output: Tensor?) {
        var copies: [ObjectIdentifier: Tensor] = [:]
        func copy(_ tensor: Tensor) throws -> Tensor {
            let key = ObjectIdentifier(tensor.storage)
            if let known = copies[key] { return known }
            let copy = try put(tensor)
            copies[key] = copy
            return copy
        }
        let moved = try operations.map { try $0.mapped(copy) }
        return (moved, try output.map(copy))
    }
}

extension CollectiveOperation {
    /// The same operation on other tensors.
    fileprivate func mapped(_ body: (Tensor) throws -> Tensor) rethrows -> CollectiveOperation {
        switch self {
        case .allReduce(let input, let reduction, let output):
            .allReduce(try body(input), reduction, into: try body(output))
        case .reduceScatter(let input, let reduction, let output):
            .reduceScatter(try body(input), reduction, into: try body(output))
        case .allGather(let input, let output): .allGather(try body(input), into: try body(output))
        case .broadcast(let tensor, let root): .broadcast(try body(tensor), root: root)
        case .allToAll(let input, let output, let splits): .allToAll(try body(input), into: try body(output), splits)
        case .send(let tensor, let target): .send(try body(tensor), to: target)
        case .receive(let tensor, let source): .receive(try body(tensor), from: source)
        case .barrier: .barrier
        }
    }
}
