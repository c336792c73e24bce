import Glibc

/// Records what ran when, as spans inside each other, for some steps of a run.
///
/// Whatever is timed asks an optional trace, so that a run without one pays a comparison with `nil` for each op and
/// nothing else. A trace reads the clock only: it changes no value and no order. On the CPU an op is done when it
/// returns, so the host's clock is the op's.
///
/// Spans, from the outside in: the step, its phases, the model's parts, ops, and adjoints. An op is recorded when it
/// is done and reaches back to where the one before it ended; one of less than a microsecond, a view, is left out.
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
        /// When it began, in nanoseconds of a clock that never goes back.
        public let start: Int
        /// How long it took, in nanoseconds.
        public fileprivate(set) var duration: Int
    }

    /// What was recorded, a span before those inside it.
    public private(set) var spans: [Span] = []
    private var open: [Int] = []
    private var mark = 0

    /// A trace without spans.
    public init() {}

    /// Begins a span inside those that are open.
    public func begin(_ name: String, _ category: Category) {
        mark = Trace.now()
        open.append(spans.count)
        spans.append(Span(name: name, category: category, start: mark, duration: 0))
    }

    /// Ends the span that was begun last.
    public func end() {
        mark = Trace.now()
        guard let index = open.popLast() else { preconditionFailure("every end has its begin") }
        spans[index].duration = mark - spans[index].start
    }

    /// Records that an op has just been done.
    func finished(_ name: String) {
        let start = mark
        mark = Trace.now()
        guard mark - start >= 1000 else { return }
        spans.append(Span(name: name, category: .op, start: start, duration: mark - start))
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
        guard let index = open.last, spans[index].category == .part else { return nil }
        return spans[index].name
    }

    private static func now() -> Int {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return time.tv_sec * 1_000_000_000 + time.tv_nsec
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
