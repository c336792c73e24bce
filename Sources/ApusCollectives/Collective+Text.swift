import ApusTensor

extension Collective {
    /// Brings a text of every rank to `root`, of any lengths. Every rank calls this.
    ///
    /// - Returns: On `root` the texts by rank, elsewhere `nil`.
    /// - Throws: ``CollectiveError``, ``TensorError/outOfMemory(requested:purpose:statistics:limit:)``.
    public func gatherText(_ text: String, root: Int = 0) throws -> [String]? {
        precondition((0..<size).contains(root), "rank \(root) of \(size)")
        let memory = CachingAllocator()
        let bytes = Array(text.utf8)
        let own = try memory.tensor([Int32(clamping: bytes.count)], Shape(1))
        let lengths = try memory.empty(Shape(size), .i32, .data)
        try allGather(own, into: lengths)
        let counts = lengths.array(of: Int32.self).map(Int.init)
        let isRoot = rank == root
        let splits = RowSplits(
            sent: (0..<size).map { $0 == root ? bytes.count : 0 },
            received: isRoot ? counts : Array(repeating: 0, count: size))
        let output = try memory.empty(Shape(isRoot ? counts.reduce(0, +) : 0), .u8, .data)
        try allToAll(try memory.tensor(bytes, Shape(bytes.count)), into: output, splits: splits)
        guard isRoot else { return nil }
        let received = output.array(of: UInt8.self)
        var place = 0
        return counts.map { count in
            defer { place += count }
            return String(decoding: received[place..<place + count], as: UTF8.self)
        }
    }

    /// A moment that all ranks share, told by each rank's own clock: zero of a trace of many ranks, whose clocks differ.
    /// Every rank calls this.
    ///
    /// It is the end of a barrier, the quickest of `rounds`: no rank leaves it before the last has come to it, so that
    /// ranks differ by no more than the longest that one of them spent in it.
    ///
    /// - Returns: The moment in nanoseconds of ``HostClock``, and the seconds by which ranks may differ.
    /// - Throws: ``CollectiveError``.
    public func sharedMoment(rounds: Int = 8) throws -> (nanoseconds: Int, uncertainty: Double) {
        precondition(rounds > 0)
        var ends: [Int] = []
        var durations: [Float] = []
        for _ in 0..<rounds {
            let begin = HostClock.nanoseconds
            try barrier()
            let end = HostClock.nanoseconds
            ends.append(end)
            durations.append(Float(end - begin) * 1e-9)
        }
        let longest = try CachingAllocator().tensor(durations, Shape(rounds))
        try allReduce(longest, .max, into: longest)
        let times = longest.floats()
        let best = times.indices.min { times[$0] < times[$1] } ?? 0
        return (ends[best], Double(times[best]))
    }
}
