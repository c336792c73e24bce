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

    /// A trace of `steps` steps to `path`, whose folder must be there: one that cannot be written is told at once.
    ///
    /// - Throws: ``FileError``
    public init(path: String, steps: Int = 3) throws {
        precondition(steps >= 1)
        self.path = path
        count = steps
        try AtomicFile.write("[]\n", to: path)
    }

    /// The trace, if `step` is one of those to record; the first call says where the run begins and what computes, `last`
    /// where it ends.
    ///
    /// A run too short for the warm-up is traced up to its end.
    func trace(step: Int, last: Int, on backend: any Backend) -> Trace? {
        let first = min(step + TraceFile.warmUp, max(step, last - count + 1))
        let steps = self.steps ?? first..<first + count
        self.steps = steps
        guard steps.contains(step) else { return nil }
        let trace = self.trace ?? Trace(on: backend)
        self.trace = trace
        return trace
    }

    /// Writes the file after the last step to record, if the device is done with it, else after a later step.
    func finished(step: Int) throws {
        if let steps, let trace, step + 1 >= steps.upperBound, trace.isComplete { try write() }
    }

    /// Writes what was recorded, unless that is done. Waits for the device.
    func write() throws {
        guard !isWritten, let trace else { return }
        isWritten = true
        try AtomicFile.write(trace.chromeJSON(), to: path)
    }
}

extension Trace {
    /// The spans as a JSON array of complete events, after two that name the rows in a viewer. Waits for the device.
    ///
    /// - Throws: what ``spans()`` throws.
    public func chromeJSON() throws -> String {
        let names = [("process_name", "apus"), ("thread_name", "rank 0")].map { key, name in
            "{\"name\":\"\(key)\",\"ph\":\"M\",\"pid\":0,\"tid\":0,\"args\":{\"name\":\"\(name)\"}}"
        }
        let events = try spans().map { span in
            """
            {"name":\(jsonString(span.name)),"cat":"\(span.category.rawValue)","ph":"X",\
            "ts":\(microseconds(span.start)),"dur":\(microseconds(span.duration)),"pid":0,"tid":0}
            """
        }
        return "[\n" + (names + events).joined(separator: ",\n") + "\n]\n"
    }

    private func microseconds(_ nanoseconds: Int) -> String {
        let rest = String(nanoseconds % 1000)
        return "\(nanoseconds / 1000)." + String(repeating: "0", count: 3 - rest.count) + rest
    }
}
