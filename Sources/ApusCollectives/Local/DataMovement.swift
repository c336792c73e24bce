import ApusTensor

/// The effect of an operation, given every rank's side of it in one address space.
enum DataMovement {
    /// Carries out one operation; `sides` are in the order of ranks, a point-to-point operation's sender first.
    static func perform(_ sides: [CollectiveOperation]) {
        guard let first = sides.first else { return }
        let inputs = sides.compactMap(\.input)
        let outputs = sides.compactMap(\.output)
        switch first {
        case .allReduce(let tensor, let reduction, _):
            RankOrderReduction(reduction, tensor.dtype, inputs.map { UnsafeRawPointer($0.rawPointer) })
                .reduce(0..<tensor.count, into: outputs.map(\.rawPointer))
        case .reduceScatter(_, let reduction, let part):
            let sum = RankOrderReduction(reduction, part.dtype, inputs.map { UnsafeRawPointer($0.rawPointer) })
            for (rank, output) in outputs.enumerated() {
                sum.reduce(part.count * rank..<part.count * (rank + 1), into: [output.rawPointer])
            }
        case .allGather(let part, _):
            let bytes = part.dtype.byteCount(elements: part.count)
            for output in outputs {
                for (rank, input) in inputs.enumerated() {
                    copy(from: input.rawPointer, to: output.rawPointer + rank * bytes, byteCount: bytes)
                }
            }
        case .broadcast(let tensor, let root):
            let bytes = tensor.dtype.byteCount(elements: tensor.count)
            for output in outputs { copy(from: inputs[root].rawPointer, to: output.rawPointer, byteCount: bytes) }
        case .allToAll: exchange(sides)
        case .send, .receive:
            if let source = inputs.first, let target = outputs.first {
                let bytes = source.dtype.byteCount(elements: source.count)
                copy(from: source.rawPointer, to: target.rawPointer, byteCount: bytes)
            }
        case .barrier: break
        }
    }

    /// The rank that sends other than what the receiver expects, if any: sender, receiver and both numbers of rows.
    static func disagreement(
        in sides: [CollectiveOperation]
    ) -> (sender: Int, receiver: Int, sent: Int, expected: Int)? {
        let splits = sides.compactMap { side -> RowSplits? in
            if case .allToAll(_, _, let splits) = side { splits } else { nil }
        }
        for (sender, from) in splits.enumerated() {
            for (receiver, to) in splits.enumerated() where from.sent[receiver] != to.received[sender] {
                return (sender, receiver, from.sent[receiver], to.received[sender])
            }
        }
        return nil
    }

    private static func exchange(_ sides: [CollectiveOperation]) {
        var places = Array(repeating: 0, count: sides.count)
        for side in sides {
            guard case .allToAll(let input, _, let splits) = side else { continue }
            var source = input.rawPointer
            for (receiver, other) in sides.enumerated() {
                guard case .allToAll(_, let output, _) = other else { continue }
                let elements = splits.map { $0.sent[receiver] * input.rowCount } ?? input.count / sides.count
                let bytes = input.dtype.byteCount(elements: elements)
                copy(from: source, to: output.rawPointer + places[receiver], byteCount: bytes)
                source += bytes
                places[receiver] += bytes
            }
        }
    }

    private static func copy(
        from source: UnsafeMutableRawPointer, to target: UnsafeMutableRawPointer, byteCount: Int
    ) {
        if source != target && byteCount > 0 { target.copyMemory(from: source, byteCount: byteCount) }
    }
}
