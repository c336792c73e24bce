public import ApusCollectives
import ApusKernels
public import ApusNN
import ApusTensor

/// The times of a few steps as a Chrome trace, which Perfetto (ui.perfetto.dev) and chrome://tracing open.
///
/// The file is a JSON array of complete events, times in microseconds of the device's clock. It is written when the device
/// is done with the last of its steps, which nobody waits for, or when the run ends; until then it is an empty array.
public final class TraceFile {
    /// Steps before the first traced one, in which memory is first allocated and kernels are chosen.
    public static let warmUp = 2

    /// Where it is.
    public let path: String
    private let count: Int
    private var trace: Trace?
    private var steps: Range<Int>?
    private var isWritten = false
    /// The other ranks, and the moment that is zero in the file, by this rank's clock.
    private var shared: (ranks: RunRanks, origin: Int)?

    /// A trace of `steps` steps to `path`, whose folder must be there: one that cannot be written is told at once.
    ///
    /// - Parameter writes: Whether this rank writes the file: one of several does, for all.
    /// - Throws: ``FileError``
    public init(path: String, steps: Int = 3, writes: Bool = true) throws {
        precondition(steps >= 1)
        self.path = path
        count = steps
        if writes { try AtomicFile.write("[]\n", to: path) }
    }

    /// The trace, if `step` is one of those to record; the first call says where the run begins and what computes, `last`
    /// where it ends.
    ///
    /// A run too short for the warm-up is traced up to its end. With several `ranks` every one of them calls this.
    func trace(step: Int, last: Int, on backend: any Backend, _ ranks: RunRanks? = nil) throws -> Trace? {
        let first = min(step + TraceFile.warmUp, max(step, last - count + 1))
        let steps = self.steps ?? first..<first + count
        self.steps = steps
        guard steps.contains(step) else { return nil }
        if let ranks, ranks.world.size > 1, shared == nil {
            shared = (ranks, try ranks.world.sharedMoment().nanoseconds)
            ranks.ledger.startRecording()
        }
        let trace = self.trace ?? Trace(on: backend)
        self.trace = trace
        return trace
    }

    /// Writes the file after the last step to record, if the device is done with it, else after a later step. Ranks write
    /// together, at once.
    func finished(step: Int) throws {
        guard let steps, let trace, step + 1 >= steps.upperBound else { return }
        if shared != nil || trace.isComplete { try write() }
    }

    /// Writes what was recorded, unless that is done. Waits for the device.
    func write() throws {
        guard !isWritten, let trace else { return }
        isWritten = true
        guard let (ranks, origin) = shared else {
            try AtomicFile.write(trace.chromeJSON(), to: path)
            return
        }
        try TraceFile.write(trace, ranks.ledger.stopRecording(), of: ranks.world, origin: origin, to: path)
    }
}

// Many ranks.
extension TraceFile {
    /// Writes the events of several ranks, each as ``Trace/chromeEvents(rank:origin:)`` and
    /// `CollectiveSpans.chromeEvents(rank:origin:)` give them, as one file: a process for each rank, its thread 0 what it
    /// computes, those from 1 on its communication.
    ///
    /// - Throws: ``FileError``
    public static func write(_ ranks: [String], to path: String) throws {
        try AtomicFile.write(ChromeTrace.file(ranks), to: path)
    }

    /// Writes what every rank of `world` has recorded as one file, which its rank 0 does. Every rank calls this.
    ///
    /// - Parameters:
    ///   - trace: What this rank has computed, if it was traced. Waits for the device.
    ///   - communication: What its ledger has recorded.
    ///   - origin: The ranks' shared moment (`Collective.sharedMoment`) on this rank's clock, from before the first span.
    /// - Throws: ``FileError``, what ``Trace/spans()`` throws, and what a collective does.
    public static func write(
        _ trace: Trace?, _ communication: CollectiveSpans, of world: any Collective, origin: Int, to path: String
    ) throws {
        let parts = [
            try trace?.chromeEvents(rank: world.rank, origin: origin) ?? "",
            communication.chromeEvents(rank: world.rank, origin: origin),
        ]
        let own = ChromeTrace.lines(parts.filter { !$0.isEmpty })
        if let ranks = try world.gatherText(own) { try write(ranks, to: path) }
    }
}

extension Trace {
    /// The spans as a JSON array of complete events, after two that name the rows in a viewer. Waits for the device.
    ///
    /// - Throws: what ``spans()`` throws.
    public func chromeJSON() throws -> String {
        ChromeTrace.file([try chromeEvents(rank: 0, origin: hostStart ?? 0)])
    }

    /// The spans as events of a Chrome trace, after two that name the rows: process `rank`, thread 0. Waits for the device.
    ///
    /// - Parameter origin: The time that is zero, in nanoseconds of `HostClock`.
    /// - Throws: what ``spans()`` throws.
    public func chromeEvents(rank: Int, origin: Int) throws -> String {
        let begin = (hostStart ?? origin) - origin
        let names = ChromeTrace.names(process: "rank \(rank)", pid: rank, threads: [(0, "compute")])
        let events = try spans().map { span in
            ChromeTrace.event(
                span.name, category: span.category.rawValue, start: begin + span.start, duration: span.duration,
                pid: rank, tid: 0)
        }
        return ChromeTrace.lines(names + events)
    }
}
