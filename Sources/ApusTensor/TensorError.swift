/// What can go wrong with memory and tensors.
public enum TensorError: Error, Sendable {
    /// No memory: what was asked, for what, what is held, and the limit in force.
    case outOfMemory(requested: Int, purpose: MemoryPurpose, statistics: MemoryStatistics, limit: Int?)
    /// A device that answers a request for memory with another error than that there is none.
    case deviceFailed(any Error)
}

extension TensorError: CustomStringConvertible {
    /// One paragraph: request, holdings by purpose, and the recipe keys to lower.
    public var description: String {
        switch self {
        case .deviceFailed(let error): return "\(error)"
        case .outOfMemory(let requested, let purpose, let statistics, let limit):
            let held = MemoryPurpose.allCases
                .filter { statistics[$0] > 0 }
                .map { "\($0) \(formatBytes(statistics[$0]))" }
                .joined(separator: ", ")
            let bound = limit.map { " of the \(formatBytes($0)) allowed" } ?? ""
            // The largest account is what to shrink, whoever made the last request; that request's own may do as well.
            let largest = MemoryPurpose.allCases.max { statistics[$0] < statistics[$1] } ?? purpose
            let isOther = purpose.keysToLower != largest.keysToLower
            let others = isOther ? "; for less \(purpose): \(purpose.keysToLower)" : ""
            return """
                out of memory: \(formatBytes(requested)) asked for \(purpose); \
                held \(formatBytes(statistics.totalLive))\(bound) (\(held.isEmpty ? "nothing" : held)). \
                Lower \(largest.keysToLower)\(others).
                """
        }
    }
}

/// A byte count for people: `512 B`, `1.5 MiB`, `3.25 GiB`.
public func formatBytes(_ bytes: Int) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"]
    guard bytes >= 1024 else { return "\(bytes) B" }
    var value = Double(bytes) / 1024
    var unit = 0
    while value >= 1024, unit < units.count - 1 {
        value /= 1024
        unit += 1
    }
    let hundredths = Int((value * 100).rounded())
    let fraction = hundredths % 100
    let text =
        fraction == 0 ? "" : fraction % 10 == 0 ? ".\(fraction / 10)" : fraction < 10 ? ".0\(fraction)" : ".\(fraction)"
    return "\(hundredths / 100)\(text) \(units[unit])"
}
