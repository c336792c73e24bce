import ApusTensor

/// An operation under way on the progress thread, which alone uses it.
final class ActiveOperation {
    let call: CollectiveCall
    let context: Int
    let members: [Int]
    let tag: Int32
    /// Messages of the present step that are not over.
    var messagesLeft = 0
    private(set) var nextStep = 0
    private var plan: ExchangePlan?
    private var request: MPIRequest?
    /// Where a split's entries arrive.
    private var entries: UnsafeMutableBufferPointer<MPISplit.Entry>?

    /// What remains of an operation when it is over.
    struct End {
        let identity: Int
        let event: Event
        let context: Int
        let channel: Channel
        let sequence: Int
    }

    init(_ request: MPIRequest, _ seat: ExchangeSeat, tag: Int32) {
        call = request.call
        context = request.context.index
        members = request.members
        self.tag = tag
        self.request = request
        switch request.body {
        case .operation(let operation): plan = ExchangePlan(operation, seat)
        case .split(let split):
            let entries = UnsafeMutableBufferPointer<MPISplit.Entry>.allocate(capacity: seat.size)
            entries.initialize(repeating: split.own)
            self.entries = entries
            let address = UnsafeMutableRawPointer(entries.baseAddress.unsafelyUnwrapped)
            let bytes = MemoryLayout<MPISplit.Entry>.stride
            plan = ExchangePlan(allGather: address + seat.rank * bytes, bytes, into: address, seat)
        }
    }

    var stepCount: Int { plan?.stepCount ?? 0 }

    /// Does the local work that is due and returns the messages of the next step.
    func takeStep() -> ExchangePlan.Step {
        defer { nextStep += 1 }
        return plan?.step(nextStep) ?? ExchangePlan.Step()
    }

    /// Lets go of the operation's tensors.
    func end() -> End {
        let end = End(
            identity: request?.identity ?? 0, event: request?.event ?? Event(), context: context, channel: call.channel,
            sequence: call.sequence)
        if case .split(let split)? = request?.body, let entries {
            split.set(Array(entries))
            entries.deallocate()
            self.entries = nil
        }
        plan = nil
        request = nil
        return end
    }

    /// The error of a message whose size is not what this rank expects.
    func disagreement(with peer: Int, expected: Int, arrived: Int, isCut: Bool) -> CollectiveError {
        let sender = CollectiveCall(
            rank: members[peer], channel: call.channel, sequence: call.sequence, operation: call.operation,
            layer: call.layer, time: call.time)
        var unit = "bytes"
        var (sent, wanted) = (arrived, expected)
        let signature = call.operation
        if signature.kind == .allToAllUneven, let elements = signature.elements, let dtype = signature.dtype {
            let row = max(dtype.byteCount(elements: elements), 1)
            unit = "rows"
            (sent, wanted) = (arrived / row, expected / row)
        }
        let amount = isCut && sent <= wanted ? "more than \(wanted)" : "\(sent)"
        return .mismatch(
            sender, call,
            detail: "rank \(sender.rank) sends \(amount) \(unit) to rank \(call.rank), which expects \(wanted)")
    }
}
