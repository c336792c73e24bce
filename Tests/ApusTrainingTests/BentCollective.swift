import ApusCollectives
import ApusTensor

/// A communicator that hands on everything and bends what one kind of operation yields: a fault that a comparison of
/// layouts has to find.
final class BentCollective: Collective {
    private let base: any Collective
    private let isBent: @Sendable (_ communicator: String, CollectiveOperation) -> Bool

    init(_ base: any Collective, where isBent: @escaping @Sendable (String, CollectiveOperation) -> Bool) {
        self.base = base
        self.isBent = isBent
    }

    var name: String { base.name }
    var rank: Int { base.rank }
    var members: [Int] { base.members }
    var timeout: Duration { base.timeout }

    func start(_ operation: CollectiveOperation, after stream: Stream, layer: Int?) throws -> Event {
        let event = try base.start(operation, after: stream, layer: layer)
        guard isBent(name, operation), let output = operation.output, output.dtype == .f32 else { return event }
        try event.wait()
        let values = output.pointer(to: Float.self)
        for index in 0..<output.count { values[index] *= 1.001 }
        return event
    }

    func split(name: String, color: Int?, key: Int, timeout: Duration?) throws -> (any Collective)? {
        try base.split(name: name, color: color, key: key, timeout: timeout).map { BentCollective($0, where: isBent) }
    }

    func abort(reason: String) { base.abort(reason: reason) }
}

extension CollectiveOperation {
    /// What it writes.
    fileprivate var output: Tensor? {
        switch self {
        case .allReduce(_, _, let output), .reduceScatter(_, _, let output), .allGather(_, let output),
            .allToAll(_, let output, _):
            output
        default: nil
        }
    }
}
