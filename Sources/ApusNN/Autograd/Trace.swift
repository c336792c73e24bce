public import ApusKernels
import ApusTensor

/// Records what ran when, as spans inside each other, for some steps of a run.
///
/// Whatever is timed asks an optional trace, so that a run without one pays a comparison with `nil` for each op and
/// nothing else. A trace puts marks between ops and reads the times when it is asked for them: it changes no value and no
/// order, and nobody waits for a device while it records. Times are the backend's: on the CPU an op is done when it
/// returns, and on a GPU the device's own clock tells, so that a span is the time in which the device did the work, not
/// that in which the host asked for it. Work that a backend records to repeat it (``RecordingOp``) is not traced.
///
/// Spans, from the outside in: the step, its phases, the model's parts, ops, and adjoints. An op is recorded when it
/// is done and reaches back to where the one before it ended. Ops and adjoints of less than a microsecond, which are
/// views, are left out.
public final class Trace {
    /// What a span is of.
    public enum Category: String, Sendable {
        /// A training step.
        case step
        /// Data, forward, backward and so on.
        case phase
        /// A stretch of the model, such as a layer.
        case part
        /// An op that a tape records.
        case op
        /// The backward half of an op.
        case adjoint
    }

    /// One stretch of time.
    public struct Span: Sendable {
        /// What ran.
        public let name: String
        /// What it is of.
        public let category: Category
        /// When it began, in nanoseconds since the trace's first mark.
        public let start: Int
        /// How long it took, in nanoseconds.
        public let duration: Int
    }

    /// A span by the places of its marks; its end is `nil` while it is open.
    private struct Stretch {
        let name: String
        let category: Category
        let begin: Int
        var end: Int?
    }

    /// When the first mark was made, in nanoseconds of ``HostClock``, which places the spans among those of other ranks
    /// and of the host; `nil` while there is none. A device comes past that mark a little later: when its queue has.
    public private(set) var hostStart: Int?
    private let clock: any ClockOp
    private var marks: [any TimeMark] = []
    private var stretches: [Stretch] = []
    private var open: [Int] = []
    /// Nanoseconds from the first mark to each of those that were read.
    private var times: [Int] = []
    private var failure: (any Error)?

    /// A trace without spans, of what `backend` does.
    public init(on backend: any ClockOp) { clock = backend }

    /// Begins a span inside those that are open.
    public func begin(_ name: String, _ category: Category) {
        mark()
        open.append(stretches.count)
        stretches.append(Stretch(name: name, category: category, begin: marks.count - 1))
    }

    /// Ends the span that was begun last.
    public func end() {
        mark()
        guard let index = open.popLast() else { preconditionFailure("every end has its begin") }
        stretches[index].end = marks.count - 1
    }

    /// Whether the backend has done all that was recorded, so that ``spans()`` does not wait.
    public var isComplete: Bool { marks.last?.isComplete ?? true }

    /// What was recorded and is not open, a span before those inside it. Waits for the backend, once.
    ///
    /// - Throws: what the device ended with, or why it made no mark.
    public func spans() throws -> [Span] {
        if let failure { throw failure }
        try marks.last?.wait()
        // From mark to mark: a device tells the time between two in few digits.
        for index in times.count..<marks.count {
            let step = index == 0 ? 0 : try marks[index].seconds(since: marks[index - 1])
            times.append((times.last ?? 0) + Int((step * 1e9).rounded()))
        }
        return stretches.compactMap { stretch in
            guard let end = stretch.end else { return nil }
            let duration = times[end] - times[stretch.begin]
            let isSmall = stretch.category == .op || stretch.category == .adjoint
            if isSmall, duration < 1000 { return nil }
            return Span(
                name: stretch.name, category: stretch.category, start: times[stretch.begin], duration: duration)
        }
    }

    /// Records that an op has just been enqueued, or done.
    func finished(_ name: String) {
        // Without a mark before it nothing tells when it began.
        let begin = max(marks.count - 1, 0)
        mark()
        stretches.append(Stretch(name: name, category: .op, begin: begin, end: marks.count - 1))
    }

    /// Begins an adjoint, inside the part of the model that its op was in.
    func beginAdjoint(_ name: String, in part: String?) {
        if openPart != part {
            leavePart()
            if let part { begin(part, .part) }
        }
        begin(name, .adjoint)
    }

    /// Ends the part of the model that is open, if one is.
    func leavePart() { if openPart != nil { end() } }

    private var openPart: String? {
        guard let index = open.last, stretches[index].category == .part else { return nil }
        return stretches[index].name
    }

    /// A device that makes no mark has failed: the op that is next says so, and whoever asks for the spans is told.
    private func mark() {
        do {
            let now = hostStart ?? HostClock.nanoseconds
            marks.append(try clock.timeMark())
            hostStart = now
        } catch {
            failure = failure ?? error
        }
    }
}

extension Trace? {
    /// Runs `body` as a span of the trace, or just runs it when there is none.
    public func span<Result>(
        _ name: @autoclosure () -> String, _ category: Trace.Category, _ body: () throws -> Result
    ) rethrows -> Result {
        guard let self else { return try body() }
        self.begin(name(), category)
        defer { self.end() }
        return try body()
    }
}

extension Tape {
    /// Runs `body` as the part `name` of the model: a trace shows its ops and their adjoints under that name.
    public func part<Result>(_ name: @autoclosure () -> String, _ body: () throws -> Result) rethrows -> Result {
        guard let trace else { return try body() }
        let name = name()
        trace.begin(name, .part)
        currentPart = name
        defer {
            currentPart = nil
            trace.end()
        }
        return try body()
    }
}
