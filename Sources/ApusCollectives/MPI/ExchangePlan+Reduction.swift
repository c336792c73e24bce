import ApusTensor

// Reductions: parts are exchanged, each rank sums one of them in the order of ranks, and hands the sum on. A rank sends
// 2 (N - 1) / N of the bytes, as few as any way of reducing, and all ranks have the same bits.

extension ExchangePlan {
    /// The reduction of `count` elements, on every rank.
    ///
    /// Long ones are cut in segments: while the sums of one are handed on, the parts of the next are exchanged, and the
    /// workspace is that of one segment.
    init(
        allReduce input: UnsafeMutableRawPointer, _ reduction: Reduction, _ dtype: DType, _ count: Int,
        into output: UnsafeMutableRawPointer, _ seat: ExchangeSeat
    ) {
        let bytes = { dtype.byteCount(elements: $0) }
        if bytes(count) * max(seat.size - 1, 1) <= seat.directBytes {
            self.init(direct: input, reduction, dtype, count, into: output, seat)
            return
        }
        let perSegment = max(seat.segmentBytes / dtype.byteCount, seat.size)
        let segments = (count + perSegment - 1) / perSegment
        // Part `owner` of a segment.
        let part = { (segment: Int, owner: Int) -> Range<Int> in
            let begin = segment * perSegment
            let range = seat.part(owner, of: min(perSegment, count - begin))
            return begin + range.lowerBound..<begin + range.upperBound
        }
        let slot = bytes((min(perSegment, count) + seat.size - 1) / seat.size)
        let workspace = seat.workspace.take(slot * seat.size)
        self.init(stepCount: segments + 1) { index in
            var step = Step()
            if index > 0, index <= segments {
                let own = part(index - 1, seat.rank)
                let inputs = (0..<seat.size).map { rank in
                    UnsafeRawPointer(
                        rank == seat.rank ? input + bytes(own.lowerBound) : workspace.address + slot * rank)
                }
                RankOrderReduction(reduction, dtype, inputs)
                    .reduce(0..<own.count, into: [output + bytes(own.lowerBound)])
                step.add(
                    receives: seat.peers.map { (output, $0, part(index - 1, $0)) },
                    sends: seat.peers.map { (output, $0, own) }, dtype)
            }
            if index < segments {
                let own = part(index, seat.rank)
                step.add(
                    receives: seat.peers.map { (workspace.address + slot * $0 - bytes(own.lowerBound), $0, own) },
                    sends: seat.peers.map { (input, $0, part(index, $0)) }, dtype)
            }
            return step
        }
    }

    /// Part `rank` of the reduction of N times `count` elements, in segments as above.
    init(
        reduceScatter input: UnsafeMutableRawPointer, _ reduction: Reduction, _ dtype: DType, _ count: Int,
        into output: UnsafeMutableRawPointer, _ seat: ExchangeSeat
    ) {
        let bytes = { dtype.byteCount(elements: $0) }
        let perSegment = max(seat.segmentBytes / dtype.byteCount / seat.size, 1)
        let segments = (count + perSegment - 1) / perSegment
        let slot = bytes(min(perSegment, count))
        let workspace = seat.workspace.take(slot * seat.size)
        let range = { (segment: Int) in segment * perSegment..<min((segment + 1) * perSegment, count) }
        self.init(stepCount: segments) { index in
            if index > 0 {
                let done = range(index - 1)
                let inputs = (0..<seat.size).map { rank in
                    UnsafeRawPointer(
                        rank == seat.rank
                            ? input + bytes(seat.rank * count + done.lowerBound) : workspace.address + slot * rank)
                }
                RankOrderReduction(reduction, dtype, inputs)
                    .reduce(0..<done.count, into: [output + bytes(done.lowerBound)])
            }
            guard index < segments else { return Step() }
            let next = range(index)
            var step = Step()
            step.add(
                receives: seat.peers.map { (workspace.address + slot * $0 - bytes(next.lowerBound), $0, next) },
                sends: seat.peers.map { (input + bytes($0 * count), $0, next) }, dtype)
            return step
        }
    }

    /// Few elements: everybody sends all to everybody and sums alone, which takes one step.
    private init(
        direct input: UnsafeMutableRawPointer, _ reduction: Reduction, _ dtype: DType, _ count: Int,
        into output: UnsafeMutableRawPointer, _ seat: ExchangeSeat
    ) {
        let byteCount = dtype.byteCount(elements: count)
        let workspace = seat.workspace.take(byteCount * seat.size)
        self.init(stepCount: count > 0 ? 1 : 0) { index in
            guard count > 0 else { return Step() }
            if index == 0 {
                var step = Step()
                step.add(
                    receives: seat.peers.map { (workspace.address + byteCount * $0, $0, 0..<count) },
                    sends: seat.peers.map { (input, $0, 0..<count) }, dtype)
                return step
            }
            let inputs = (0..<seat.size).map { rank in
                UnsafeRawPointer(rank == seat.rank ? input : workspace.address + byteCount * rank)
            }
            RankOrderReduction(reduction, dtype, inputs).reduce(0..<count, into: [output])
            return Step()
        }
    }
}

extension ExchangePlan.Step {
    /// Elements `range` of what begins at an address, from or to a peer; empty ones are no message.
    fileprivate mutating func add(
        receives: [(UnsafeMutableRawPointer, Int, Range<Int>)], sends: [(UnsafeMutableRawPointer, Int, Range<Int>)],
        _ dtype: DType
    ) {
        let message = { (base: UnsafeMutableRawPointer, peer: Int, range: Range<Int>) in
            ExchangePlan.Message(
                peer: peer, address: base + dtype.byteCount(elements: range.lowerBound),
                byteCount: dtype.byteCount(elements: range.count))
        }
        self.receives += receives.filter { !$0.2.isEmpty }.map(message)
        self.sends += sends.filter { !$0.2.isEmpty }.map(message)
    }
}
