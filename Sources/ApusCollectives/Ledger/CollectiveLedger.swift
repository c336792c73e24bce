public import ApusTensor
import Synchronization

/// What a rank has asked of its communicators and what it cost: calls, bytes and time, by communicator, operation,
/// element type and layer.
///
/// An operation is counted when it is started. Its time is added when it ends, by the thread that announces the end, before
/// whoever waits for it goes on. See ``Cost`` for what is measured.
public final class CollectiveLedger: Sendable {
    private let state = Mutex(State())

    private struct State {
        var places: [Entry: Int] = [:]
        var costs: [Cost] = []
        /// Operations of a device whose time is not known yet, and the places of their costs.
        var onDevice: [(place: Int, work: any TimedWork)] = []
        var recording: SpanRecording?
        var generation = 0

        /// Adds the times of the device's operations that are over.
        mutating func settle() {
            var left: [(place: Int, work: any TimedWork)] = []
            for entry in onDevice {
                if let seconds = entry.work.seconds {
                    costs[entry.place].add(nanoseconds: Int(seconds * 1e9), held: 0)
                } else {
                    left.append(entry)
                }
            }
            onDevice = left
        }
    }

    /// What is counted together.
    public struct Entry: Sendable, Hashable {
        /// The communicator's name.
        public let communicator: String
        /// The operation.
        public let kind: OperationSignature.Kind
        /// Element type, of those that move data.
        public let dtype: DType?
        /// The model's layer that asked, if it said so.
        public let layer: Int?
    }

    /// A ledger without entries.
    public init() {}

    /// Calls and bytes of everything that was counted.
    public var all: [Entry: Count] { costs.mapValues(\.count) }

    /// Everything that was counted, with its time: of a device's operations, that of those which are over by now.
    public var costs: [Entry: Cost] {
        state.withLock { state in
            state.settle()
            return state.places.mapValues { state.costs[$0] }
        }
    }

    /// The sum of the entries that satisfy `condition`.
    public func total(where condition: (Entry) -> Bool) -> Count { cost(where: condition).count }

    /// The sum over the operations of `kinds`, of elements of type `dtype`.
    public func total(of kinds: OperationSignature.Kind..., dtype: DType) -> Count {
        total { kinds.contains($0.kind) && $0.dtype == dtype }
    }

    /// The sum of the entries that satisfy `condition`, with its time; of all entries without one.
    public func cost(where condition: (Entry) -> Bool = { _ in true }) -> Cost {
        costs.reduce(Cost()) { condition($1.key) ? $0 + $1.value : $0 }
    }

    /// Forgets everything that was counted, and what is under way.
    public func clear() { _ = take() }

    /// Forgets everything that was counted, and returns it as a ledger of its own. Of what is under way that one still
    /// learns the times of a device's operations, when they are over.
    public func take() -> CollectiveLedger {
        let taken = CollectiveLedger()
        state.withLock { state in
            taken.state.withLock { [places = state.places, costs = state.costs, onDevice = state.onDevice] in
                ($0.places, $0.costs, $0.onDevice) = (places, costs, onDevice)
            }
            (state.places, state.costs, state.onDevice) = ([:], [], [])
            state.generation += 1
        }
        return taken
    }
}

// Spans.
extension CollectiveLedger {
    /// Begins to keep a span of each operation that is started from now on, of the first `limit` that end.
    public func startRecording(limit: Int = 100_000) {
        state.withLock { $0.recording = SpanRecording(limit: limit, begin: HostClock.nanoseconds) }
    }

    /// Ends the recording: the spans of operations that have ended, by their start.
    public func stopRecording() -> CollectiveSpans {
        let recording = state.withLock { $0.recording.take() }
        return recording?.result ?? CollectiveSpans(spans: [], leftOut: 0)
    }
}

// The side of whoever counts.
extension CollectiveLedger {
    /// An operation that was started.
    struct Call: Sendable {
        let entry: Entry
        let bytes: Int
        fileprivate var generation = 0
        /// Of its cost in the ledger, where the end finds it without another look at names.
        fileprivate var place = 0
    }

    /// Counts an operation.
    func note(_ operation: CollectiveOperation, on communicator: String, layer: Int?) -> Call {
        let signature = OperationSignature(operation)
        var call = Call(
            entry: Entry(communicator: communicator, kind: signature.kind, dtype: signature.dtype, layer: layer),
            bytes: operation.byteCount)
        let count = Count(calls: 1, bytes: call.bytes)
        (call.generation, call.place) = state.withLock { [entry = call.entry] state in
            let place = state.places[entry] ?? state.costs.count
            if place == state.costs.count {
                state.places[entry] = place
                state.costs.append(Cost())
            }
            state.costs[place].count += count
            return (state.generation, place)
        }
        return call
    }

    /// Takes the time of an operation from the device that does it.
    func note(_ call: Call, timedBy work: any TimedWork) {
        state.withLock { state in
            guard call.generation == state.generation else { return }
            state.costs[call.place].noteDevice()
            state.onDevice.append((call.place, work))
        }
    }

    /// Adds the time of an operation: `held` are the nanoseconds of it in which the caller could do nothing else.
    func note(_ call: Call, from start: Int, to end: Int, held: Int) {
        state.withLock { state in
            if call.generation == state.generation {
                state.costs[call.place].add(nanoseconds: max(end - start, 0), held: held)
            }
            guard state.recording != nil else { return }
            state.recording?.add(
                CollectiveSpan(
                    communicator: call.entry.communicator, operation: call.entry.kind, layer: call.entry.layer,
                    bytes: call.bytes, start: start, end: end, held: held))
        }
    }
}
