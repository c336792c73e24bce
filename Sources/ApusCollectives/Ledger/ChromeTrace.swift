import ApusTensor

/// The text of a Chrome trace: an array of events, times in microseconds, which Perfetto and chrome://tracing open.
package enum ChromeTrace {
    /// What names a rank's rows: the process `pid`, and its thread `tid`.
    package static func names(process: String, pid: Int, threads: [(tid: Int, name: String)]) -> [String] {
        [name("process_name", process, pid, 0)] + threads.map { name("thread_name", $0.name, pid, $0.tid) }
    }

    /// A complete event; `start` and `duration` are nanoseconds.
    package static func event(
        _ name: String, category: String, start: Int, duration: Int, pid: Int, tid: Int, arguments: String? = nil
    ) -> String {
        """
        {"name":\(jsonString(name)),"cat":\(jsonString(category)),"ph":"X","ts":\(microseconds(start)),\
        "dur":\(microseconds(duration)),"pid":\(pid),"tid":\(tid)\(arguments.map { ",\"args\":\($0)" } ?? "")}
        """
    }

    /// Events as a part of a file: one on each line, with commas between.
    package static func lines(_ events: [String]) -> String { events.joined(separator: ",\n") }

    /// A file of parts, those without an event left out.
    package static func file(_ parts: [String]) -> String {
        "[\n" + parts.filter { !$0.isEmpty }.joined(separator: ",\n") + "\n]\n"
    }

    /// Nanoseconds as microseconds with three decimals.
    package static func microseconds(_ nanoseconds: Int) -> String {
        let rest = String(nanoseconds.magnitude % 1000)
        let sign = nanoseconds < 0 ? "-" : ""
        return "\(sign)\(nanoseconds.magnitude / 1000)." + String(repeating: "0", count: 3 - rest.count) + rest
    }

    private static func name(_ key: String, _ name: String, _ pid: Int, _ tid: Int) -> String {
        "{\"name\":\"\(key)\",\"ph\":\"M\",\"pid\":\(pid),\"tid\":\(tid),\"args\":{\"name\":\(jsonString(name))}}"
    }
}

extension CollectiveSpans {
    /// The spans as events of a Chrome trace: rank `rank` is the process, thread 1 its communication; an operation that
    /// begins while others are under way goes to the first thread from 1 on that is free then.
    ///
    /// - Parameter origin: The time that is zero, in nanoseconds of ``HostClock``.
    public func chromeEvents(rank: Int, origin: Int) -> String {
        var ends: [Int] = []
        let events = spans.map { span in
            let lane = ends.firstIndex { $0 <= span.start } ?? ends.count
            if lane == ends.count { ends.append(span.end) } else { ends[lane] = span.end }
            return ChromeTrace.event(
                span.name, category: "communication", start: span.start - origin, duration: span.end - span.start,
                pid: rank, tid: 1 + lane,
                arguments: """
                    {"communicator":\(jsonString(span.communicator)),"bytes":\(span.bytes),\
                    "exposed_us":\(ChromeTrace.microseconds(span.held))}
                    """)
        }
        let threads = ends.indices.map { lane in
            (tid: 1 + lane, name: lane == 0 ? "communication" : "communication \(lane + 1)")
        }
        let names = ChromeTrace.names(process: "rank \(rank)", pid: rank, threads: threads)
        return ChromeTrace.lines(events.isEmpty ? [] : names + events)
    }
}
