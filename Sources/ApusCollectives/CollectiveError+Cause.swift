extension CollectiveError {
    /// Why other communicators end: the innermost reason.
    var cause: String {
        if case .aborted(_, let reason) = self { reason } else { description }
    }

    /// What a rank that waits in `call` learns when the world ends by this error: the error itself where it is about that
    /// call, else that all is over and why.
    func seen(by call: CollectiveCall) -> CollectiveError {
        switch self {
        case .timeout(let other, _, _), .mismatch(let other, _, _):
            if other.channel == call.channel && other.sequence == call.sequence { return self }
        case .lost: return self
        case .aborted, .notHostMemory: break
        }
        return .aborted(communicator: call.channel.communicator, reason: cause)
    }
}
