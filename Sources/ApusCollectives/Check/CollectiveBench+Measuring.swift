import ApusTensor

// What each rank does for a result.
extension CollectiveBench {
    /// Measures operations in turn.
    func measure(_ kinds: [Kind], byteCount: Int, seconds: Double) throws -> [Result] {
        let count = max(byteCount / 4 / collective.size, 1) * collective.size
        let works = try kinds.map { try operations($0, count: count) }
        for work in works { _ = try time(work, repeats: 2) }
        // Times that all ranks know: they must do the same number.
        let first = try agree(try works.map { try time($0, repeats: 3) }).max() ?? 0
        let repeats = max(1, min(200, Int(0.004 / max(first, 1e-7))))
        let rounds = min(
            max(Int(seconds / max(first * Double(repeats), 1e-7)), CollectiveBench.rounds.lowerBound),
            CollectiveBench.rounds.upperBound)
        let times = try agree(
            (0..<rounds).flatMap { _ in
                try works.map { work in
                    try control.barrier()
                    return try time(work, repeats: repeats)
                }
            })
        return kinds.enumerated().map { place, kind in
            let own = (0..<rounds).map { times[$0 * kinds.count + place] }.sorted()
            let middle = rounds / 2
            return Result(
                kind: kind, ranks: collective.size, byteCount: count * 4,
                seconds: rounds % 2 == 1 ? own[middle] : (own[middle - 1] + own[middle]) / 2,
                fastest: own[0], slowest: own[rounds - 1], rounds: rounds)
        }
    }

    /// Each number's largest over the ranks.
    private func agree(_ seconds: [Double]) throws -> [Double] {
        let tensor = try CachingAllocator().tensor(seconds.map { Float($0) }, Shape(seconds.count))
        try control.allReduce(tensor, .max, into: tensor)
        return tensor.floats().map(Double.init)
    }

    /// Seconds of one execution.
    private func time(_ operations: [CollectiveOperation], repeats: Int) throws -> Double {
        let start = HostClock.nanoseconds
        var queued: [Event] = []
        for _ in 0..<repeats {
            let events = try operations.map { try collective.start($0, after: stream, layer: nil) }
            for event in events where event.work == nil { try event.wait() }
            queued = events.filter { $0.work != nil }
        }
        for event in queued { try event.wait() }
        return Double(HostClock.nanoseconds - start) * 1e-9 / Double(repeats)
    }

    /// What is started together, of `count` elements, a multiple of the number of ranks.
    private func operations(_ kind: Kind, count: Int) throws -> [CollectiveOperation] {
        let (rank, size) = (collective.rank, collective.size)
        switch kind {
        case .allReduce: return [.allReduce(try elements(count), .sum, into: try elements(count))]
        case .reduceScatter: return [.reduceScatter(try elements(count), .sum, into: try elements(count / size))]
        case .allGather: return [.allGather(try elements(count / size), into: try elements(count))]
        case .broadcast: return [.broadcast(try elements(count), root: 0)]
        case .allToAll: return [.allToAll(try elements(count), into: try elements(count), nil)]
        case .allToAllUneven:
            let splits = CollectiveBench.unevenSplits(rank: rank, size: size, rows: count)
            return [.allToAll(try elements(count), into: try elements(count), splits)]
        case .sendReceive:
            return [
                .send(try elements(count), to: (rank + 1) % size),
                .receive(try elements(count), from: (rank + size - 1) % size),
            ]
        }
    }

    /// Parts that depend on how far the receiver is from the sender, so that every rank sends and receives `rows` rows: to
    /// itself 1 / N of them, to the others in proportion to the distance.
    static func unevenSplits(rank: Int, size: Int, rows: Int) -> RowSplits {
        let own = rows / size
        let unit = max(size * (size - 1) / 2, 1)
        var parts = (0..<size).map { $0 == 0 ? own : (rows - own) * $0 / unit }
        parts[size - 1] += rows - parts.reduce(0, +)
        return RowSplits(
            sent: (0..<size).map { parts[($0 - rank + size) % size] },
            received: (0..<size).map { parts[(rank - $0 + size) % size] })
    }
}
