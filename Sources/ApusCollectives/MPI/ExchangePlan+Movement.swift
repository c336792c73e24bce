import ApusTensor

// Operations that move bytes and compute nothing.

extension ExchangePlan {
    /// The plan of `operation` for the rank that sits at `seat`.
    init(_ operation: CollectiveOperation, _ seat: ExchangeSeat) {
        switch operation {
        case .allReduce(let input, let reduction, let output):
            self.init(
                allReduce: input.rawPointer, reduction, input.dtype, input.count, into: output.rawPointer, seat)
        case .reduceScatter(let input, let reduction, let output):
            self.init(
                reduceScatter: input.rawPointer, reduction, input.dtype, output.count, into: output.rawPointer, seat)
        case .allGather(let input, let output):
            self.init(allGather: input.rawPointer, input.byteCount, into: output.rawPointer, seat)
        case .broadcast(let tensor, let root):
            self.init(broadcast: tensor.rawPointer, tensor.byteCount, root: root, seat)
        case .allToAll(let input, let output, let splits):
            self.init(allToAll: input, into: output, splits, seat)
        case .send(let tensor, let target):
            let message = Message(peer: target, address: tensor.rawPointer, byteCount: tensor.byteCount)
            self.init(stepCount: 1) { $0 == 0 ? Step(sends: [message]) : Step() }
        case .receive(let tensor, let source):
            let message = Message(peer: source, address: tensor.rawPointer, byteCount: tensor.byteCount)
            self.init(stepCount: 1) { $0 == 0 ? Step(receives: [message]) : Step() }
        case .barrier: self.init(barrier: seat)
        }
    }

    /// Every rank's `byteCount` bytes, one after the other by rank.
    init(
        allGather input: UnsafeMutableRawPointer, _ byteCount: Int, into output: UnsafeMutableRawPointer,
        _ seat: ExchangeSeat
    ) {
        self.init(stepCount: byteCount > 0 ? 1 : 0) { index in
            guard index == 0, byteCount > 0 else { return Step() }
            let own = output + seat.rank * byteCount
            if own != input { own.copyMemory(from: input, byteCount: byteCount) }
            return Step(
                receives: seat.peers.map {
                    Message(peer: $0, address: output + $0 * byteCount, byteCount: byteCount)
                },
                sends: seat.peers.map { Message(peer: $0, address: input, byteCount: byteCount) })
        }
    }

    /// The root's bytes: all at once when they are few, else a part to each rank, which then hands its part on, so that no
    /// rank sends more than twice the whole.
    private init(broadcast tensor: UnsafeMutableRawPointer, _ byteCount: Int, root: Int, _ seat: ExchangeSeat) {
        let isRoot = seat.rank == root
        if byteCount <= seat.directBytes || seat.size == 2 {
            let everything = { Message(peer: $0, address: tensor, byteCount: byteCount) }
            self.init(stepCount: byteCount > 0 ? 1 : 0) { index in
                if index > 0 || byteCount == 0 { return Step() }
                return isRoot ? Step(sends: seat.peers.map(everything)) : Step(receives: [everything(root)])
            }
            return
        }
        let part = { (owner: Int, peer: Int) in
            let range = seat.part(owner, of: byteCount)
            return Message(peer: peer, address: tensor + range.lowerBound, byteCount: range.count)
        }
        self.init(stepCount: 2) { index in
            switch index {
            case 0:
                isRoot ? Step(sends: seat.peers.map { part($0, $0) }) : Step(receives: [part(seat.rank, root)])
            case 1:
                Step(
                    receives: isRoot ? [] : seat.peers.map { part($0, $0) },
                    sends: seat.peers.filter { $0 != root }.map { part(seat.rank, $0) })
            default: Step()
            }
        }
    }

    /// Part `j` to rank `j`.
    ///
    /// With splits a message goes even where there are no rows, so that ranks which disagree about them find out.
    private init(allToAll input: Tensor, into output: Tensor, _ splits: RowSplits?, _ seat: ExchangeSeat) {
        let size = seat.size
        let row = input.dtype.byteCount(elements: input.shape.rank > 0 ? input.rowCount : 1)
        let even = input.byteCount / size
        let sent = splits?.sent.map { $0 * row } ?? Array(repeating: even, count: size)
        let received = splits?.received.map { $0 * row } ?? Array(repeating: even, count: size)
        let places = { (sizes: [Int]) in sizes.reduce(into: [0]) { $0.append(($0.last ?? 0) + $1) } }
        let (sources, targets) = (places(sent), places(received))
        let (from, to) = (input.rawPointer, output.rawPointer)
        let isSilent = splits == nil && even == 0
        self.init(stepCount: isSilent ? 0 : 1) { index in
            guard index == 0, !isSilent else { return Step() }
            let own = min(sent[seat.rank], received[seat.rank])
            if own > 0 {
                (to + targets[seat.rank]).copyMemory(from: from + sources[seat.rank], byteCount: own)
            }
            return Step(
                receives: seat.peers.map { Message(peer: $0, address: to + targets[$0], byteCount: received[$0]) },
                sends: seat.peers.map { Message(peer: $0, address: from + sources[$0], byteCount: sent[$0]) })
        }
    }

    /// In each step a rank hears from one twice as far away, and so from everybody after log2 N of them.
    private init(barrier seat: ExchangeSeat) {
        let distances = sequence(first: 1) { $0 * 2 }.prefix { $0 < seat.size }
        let steps = Array(distances)
        let nothing = seat.workspace.take(0)
        self.init(stepCount: steps.count) { index in
            guard index < steps.count else { return Step() }
            let distance = steps[index]
            let message = { (peer: Int) in Message(peer: peer, address: nothing.address, byteCount: 0) }
            return Step(
                receives: [message((seat.rank + seat.size - distance) % seat.size)],
                sends: [message((seat.rank + distance) % seat.size)])
        }
    }
}

extension Tensor {
    /// Bytes of all elements.
    fileprivate var byteCount: Int { dtype.byteCount(elements: count) }
}
