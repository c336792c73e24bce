/// How long transfers take in an in-process world: what a network would add.
public struct TransferDelay: Sendable {
    /// Time that every operation takes, whatever its size.
    public var perOperation: Duration
    /// Bytes a second, of the rank that contributes most; `nil` for no limit.
    public var bytesPerSecond: Double?

    /// A delay of `perOperation`, and of an operation's bytes over `bytesPerSecond`.
    public init(perOperation: Duration = .zero, bytesPerSecond: Double? = nil) {
        precondition(perOperation >= .zero && bytesPerSecond.map { $0 > 0 } ?? true)
        self.perOperation = perOperation
        self.bytesPerSecond = bytesPerSecond
    }

    /// No delay.
    public static let none = TransferDelay()

    /// The time that an operation of `byteCount` bytes takes.
    public func duration(byteCount: Int) -> Duration {
        guard let bytesPerSecond else { return perOperation }
        return perOperation + .seconds(Double(byteCount) / bytesPerSecond)
    }
}
