import ApusCollectives
import ApusTensor
import Synchronization

/// Messages that a rank has sent to other ranks, by operation and element type.
final class MessageLedger: Sendable {
    struct Kind: Hashable {
        let operation: OperationSignature.Kind
        let dtype: DType?
    }

    private let counts = Mutex<[Kind: Int]>([:])

    /// Messages of rows and gradients in all-to-alls.
    var rows: Int { count(.allToAll, .f32) + count(.allToAllUneven, .f32) }

    func count(_ operation: OperationSignature.Kind, _ dtype: DType) -> Int {
        counts.withLock { $0[Kind(operation: operation, dtype: dtype)] ?? 0 }
    }

    func note(_ operation: OperationSignature.Kind, _ dtype: DType?, _ messages: Int) {
        counts.withLock { $0[Kind(operation: operation, dtype: dtype), default: 0] += messages }
    }
}

/// A communicator that counts what an operation sends to other ranks, empty parts of an all-to-all left out, and hands
/// it on.
final class MessageCounter: Collective {
    private let base: any Collective
    private let ledger: MessageLedger

    init(_ base: any Collective, in ledger: MessageLedger) {
        self.base = base
        self.ledger = ledger
    }

    var name: String { base.name }
    var rank: Int { base.rank }
    var members: [Int] { base.members }
    var timeout: Duration { base.timeout }

    func start(_ operation: CollectiveOperation, after stream: ApusTensor.Stream, layer: Int?) throws -> Event {
        let signature = OperationSignature(operation)
        var messages = size - 1
        switch operation {
        case .allToAll(_, _, let splits?):
            messages = splits.sent.enumerated().count { $0.offset != rank && $0.element > 0 }
        case .allToAll(let input, _, nil) where input.count == 0: messages = 0
        default: break
        }
        ledger.note(signature.kind, signature.dtype, messages)
        return try base.start(operation, after: stream, layer: layer)
    }

    func split(name: String, color: Int?, key: Int, timeout: Duration?) throws -> (any Collective)? {
        try base.split(name: name, color: color, key: key, timeout: timeout).map { MessageCounter($0, in: ledger) }
    }

    func abort(reason: String) { base.abort(reason: reason) }
}
