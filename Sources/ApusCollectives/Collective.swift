public import ApusTensor

/// The ranks that talk to each other, seen from one of them.
///
/// 1. Every rank of a communicator starts the same operations in the same order, from one thread. A rank that has
///    nothing to give takes part with zero rows.
/// 2. ``start(_:after:layer:)`` returns at once; the event it returns completes the operation's output, and until then
///    nobody touches the operation's tensors. The operation keeps their storage alive. It waits for tensors that are
///    not ready themselves.
/// 3. An operation that is not complete within ``timeout`` fails on every rank that waits for it, and with it all
///    that belongs to the same world: later calls throw ``CollectiveError/aborted(communicator:reason:)``.
///
/// An implementation provides these requirements; the named operations, blocking and event-returning, follow from
/// ``start(_:after:layer:)``.
public protocol Collective: AnyObject, Sendable {
    /// The communicator's name in messages and traces: `world`, `expert.0`, `expert.0/tensor.1`.
    var name: String { get }
    /// This rank's place in ``members``.
    var rank: Int { get }
    /// The ranks of the world that belong to this communicator, by their rank in it.
    var members: [Int] { get }
    /// How long an operation may wait for the other ranks.
    var timeout: Duration { get }

    /// Starts one operation and returns the event that completes its output.
    ///
    /// - Parameters:
    ///   - operation: What to do; a shape that does not fit the communicator traps.
    ///   - stream: The stream whose earlier work made the operation's tensors.
    ///   - layer: The model's layer that asks, for messages.
    /// - Throws: ``CollectiveError``, or the error that an input of the operation ended with.
    func start(_ operation: CollectiveOperation, after stream: Stream, layer: Int?) throws -> Event

    /// Divides the ranks: those of equal `color` form a communicator, ordered by `key`, then by rank here. Blocks; every
    /// rank takes part, with a `color` of `nil` when it joins none.
    ///
    /// - Parameters:
    ///   - name: What the parts are for; a part is called `name.color` below the name of this communicator.
    ///   - timeout: The parts' timeout; `nil` for this communicator's.
    /// - Returns: This rank's part, `nil` without a color.
    /// - Throws: ``CollectiveError``.
    func split(name: String, color: Int?, key: Int, timeout: Duration?) throws -> (any Collective)?

    /// Ends every operation of the world that is under way or will be started, on all ranks, with
    /// ``CollectiveError/aborted(communicator:reason:)``.
    func abort(reason: String)
}

extension Collective {
    /// Number of ranks.
    public var size: Int { members.count }

    /// Divides the ranks by `color`, ordered by `key`, under this communicator's timeout.
    ///
    /// - Throws: ``CollectiveError``.
    public func split(name: String, color: Int?, key: Int = 0) throws -> (any Collective)? {
        try split(name: name, color: color, key: key, timeout: nil)
    }

    /// The name of the part of this communicator with `color`; `occurrence` tells apart parts of the same name.
    func partName(_ name: String, color: Int, occurrence: Int) -> String {
        let part = occurrence == 1 ? "\(name).\(color)" : "\(name).\(color)#\(occurrence)"
        return self.name == worldName ? part : "\(self.name)/\(part)"
    }
}

/// What the communicator of all ranks is called.
let worldName = "world"
