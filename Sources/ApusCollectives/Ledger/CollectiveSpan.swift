import ApusTensor

/// One operation's stretch of time on one rank.
public struct CollectiveSpan: Sendable, Equatable {
    /// The communicator's name.
    public let communicator: String
    /// Which operation.
    public let operation: OperationSignature.Kind
    /// The model's layer that asked, if it said so.
    public let layer: Int?
    /// ``CollectiveOperation/byteCount``.
    public let bytes: Int
    /// When it was started, in nanoseconds of ``HostClock``.
    public let start: Int
    /// When its output was complete, in nanoseconds of ``HostClock``.
    public let end: Int
    /// The nanoseconds of it that held the caller up: see ``CollectiveLedger/Cost``.
    public let held: Int

    /// For a viewer: `all-to-all expert4 layer 3, 1.2 MiB`.
    public var name: String {
        let place = layer.map { " layer \($0)" } ?? ""
        let amount = bytes > 0 ? ", \(formatBytes(bytes))" : ""
        return "\(operation.rawValue) \(CollectiveLedger.kind(ofCommunicator: communicator))\(place)\(amount)"
    }
}

/// The operations that a ledger has recorded.
public struct CollectiveSpans: Sendable {
    /// In the order of their starts.
    public let spans: [CollectiveSpan]
    /// Operations beyond the limit.
    public let leftOut: Int
}

/// Spans up to a limit, of operations that are started after its beginning.
struct SpanRecording: Sendable {
    private let limit: Int
    private let begin: Int
    private var spans: [CollectiveSpan] = []
    private var leftOut = 0

    init(limit: Int, begin: Int) {
        self.limit = limit
        self.begin = begin
    }

    mutating func add(_ span: CollectiveSpan) {
        guard span.start >= begin else { return }
        if spans.count < limit { spans.append(span) } else { leftOut += 1 }
    }

    var result: CollectiveSpans { CollectiveSpans(spans: spans.sorted { $0.start < $1.start }, leftOut: leftOut) }
}
