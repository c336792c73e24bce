import ApusTensor

extension CollectiveCheck {
    /// Operations that are started together.
    private static let count = 200

    /// Starts more operations than may be under way at once, of several kinds and on two communicators, and waits for
    /// them in another order than they were started in.
    static func manyAtOnce(on collective: any Collective, _ memory: CachingAllocator, _ place: TensorPlace) throws
        -> Outcome
    {
        let (rank, size) = (collective.rank, collective.size)
        let half = (size + 1) / 2
        guard let part = try collective.split(name: "half", color: rank / half) else {
            preconditionFailure("every rank has a color")
        }
        let first = rank / half * half
        let start = ContinuousClock.now
        var pending: [(tensor: Tensor, expected: [Int])] = []
        var sends: [Event] = []
        for round in 0..<count {
            let value = { Int32(clamping: $0 * 10 + round) }
            let own = try place.put(memory.tensor([value(rank)], Shape(1)))
            let empty = { (count: Int) in try place.put(memory.empty(Shape(count), .i32, .data)) }
            switch round % 4 {
            case 0:
                let sum = (0..<size).reduce(0) { $0 + Int(value($1)) }
                pending.append((try collective.startAllReduce(own, into: empty(1), after: place.stream), [sum]))
            case 1:
                let all = (first..<first + part.size).map { Int(value($0)) }
                pending.append((try part.startAllGather(own, into: empty(part.size), after: place.stream), all))
            case 2 where size > 1:
                let (next, previous) = ((rank + 1) % size, (rank + size - 1) % size)
                sends.append(try collective.startSend(own, to: next, after: place.stream))
                let output = try collective.startReceive(empty(1), from: previous, after: place.stream)
                pending.append((output, [Int(value(previous))]))
            default:
                // Everything goes to one rank, which changes.
                let target = round % size
                let splits = RowSplits(
                    sent: (0..<size).map { $0 == target ? 1 : 0 },
                    received: Array(repeating: rank == target ? 1 : 0, count: size))
                let output = try collective.startAllToAll(
                    own, into: empty(rank == target ? size : 0), splits: splits, after: place.stream)
                pending.append((output, rank == target ? (0..<size).map { Int(value($0)) } : []))
            }
        }
        var wrong = 0
        for (tensor, expected) in pending.reversed() {
            try tensor.ready?.wait()
            if try place.fetch(tensor).array(of: Int32.self).map(Int.init) != expected { wrong += 1 }
        }
        for event in sends { try event.wait() }
        let seconds = Double(start.duration(to: .now).microseconds) / 1e6 / Double(count)
        let time = try memory.tensor([Float(seconds)], Shape(1))
        try collective.allReduce(time, .max, into: time)
        return Outcome(
            name: "\(count) at once", dtype: .i32, byteCount: 4, seconds: Double(time.floats()[0]),
            wrongByRank: try collective.byRank(wrong, memory))
    }
}
