import ApusTensor

extension CollectiveCheck {
    /// The checks that a communicator of `size` ranks can run; `inRankOrder` with those of the order of sums.
    static func all(size: Int, inRankOrder: Bool = true) -> [CollectiveCheck] {
        let reductions =
            [
                reduceScatter(.f32, .sum), reduceScatter(.bf16, .sum), allReduce(.f32, .sum), allReduce(.bf16, .sum),
                allReduce(.i32, .sum), allReduce(.f32, .max),
            ] + (inRankOrder ? [rankOrder(.f32), rankOrder(.bf16)] : [])
        let movements = [allGather, broadcast, allToAll, unevenAllToAll]
        return reductions + movements + (size > 1 ? [ring] : []) + [barrier]
    }

    /// A small whole number that tells its rank and place.
    private static func value(_ rank: Int, _ index: Int) -> Int { (rank * 5 + index * 3) % 11 - 5 }

    /// The sum or maximum of all ranks' values, as it is after rounding to `dtype`.
    private static func reduced(_ index: Int, _ size: Int, _ reduction: Reduction, _ dtype: DType) -> Int {
        let values = (0..<size).lazy.map { value($0, index) }
        let result = reduction == .sum ? values.reduce(0, +) : values.max() ?? 0
        return dtype == .bf16 ? Int(Float(bitPattern: UInt32(roundedToBF16(Float(result))) << 16)) : result
    }

    private static func tensor(
        _ memory: CachingAllocator, _ dtype: DType, _ shape: Shape, _ value: (Int) -> Int
    ) throws -> Tensor {
        switch dtype {
        case .f32: try memory.tensor((0..<shape.count).map { Float(value($0)) }, shape)
        case .bf16: try memory.tensor((0..<shape.count).map { roundedToBF16(Float(value($0))) }, shape)
        case .i32: try memory.tensor((0..<shape.count).map { Int32(value($0)) }, shape)
        case .u8: try memory.tensor((0..<shape.count).map { UInt8(truncatingIfNeeded: value($0)) }, shape)
        }
    }

    private static func allReduce(_ dtype: DType, _ reduction: Reduction) -> CollectiveCheck {
        CollectiveCheck(name: "all-reduce (\(reduction.rawValue))", dtype: dtype) { seat, memory, bytes in
            let count = max(bytes / dtype.byteCount, 1)
            let input = try tensor(memory, dtype, Shape(count)) { value(seat.rank, $0) }
            let output = try tensor(memory, dtype, Shape(count)) { _ in 0 }
            return Trial(operations: [.allReduce(input, reduction, into: output)], output: output) {
                reduced($0, seat.size, reduction, dtype)
            }
        }
    }

    /// Sums that have these bits only when they are added in `f32` in the order of ranks, and rounded once.
    private static func rankOrder(_ dtype: DType) -> CollectiveCheck {
        let value = { @Sendable (rank: Int, index: Int) in
            if dtype == .bf16 { return rank == 0 ? 256 : 1 }
            return [100_000_000, 1 + index % 5, -100_000_000, 3][rank % 4]
        }
        return CollectiveCheck(name: "all-reduce (rank order)", dtype: dtype) { seat, memory, bytes in
            let count = max(bytes / dtype.byteCount, 1)
            let tensor = try tensor(memory, dtype, Shape(count)) { value(seat.rank, $0) }
            return Trial(operations: [.allReduce(tensor, .sum, into: tensor)], output: tensor) { index in
                let sum = (0..<seat.size).reduce(Float(0)) { $0 + Float(value($1, index)) }
                return Int(dtype == .bf16 ? Float(bitPattern: UInt32(roundedToBF16(sum)) << 16) : sum)
            }
        }
    }

    private static func reduceScatter(_ dtype: DType, _ reduction: Reduction) -> CollectiveCheck {
        CollectiveCheck(name: "reduce-scatter (\(reduction.rawValue))", dtype: dtype) { seat, memory, bytes in
            let part = max(bytes / dtype.byteCount / seat.size, 1)
            let input = try tensor(memory, dtype, Shape(part * seat.size)) { value(seat.rank, $0) }
            let output = try tensor(memory, dtype, Shape(part)) { _ in 0 }
            return Trial(operations: [.reduceScatter(input, reduction, into: output)], output: output) {
                reduced(seat.rank * part + $0, seat.size, reduction, dtype)
            }
        }
    }

    private static let allGather = CollectiveCheck(name: "all-gather", dtype: .f32) { seat, memory, bytes in
        let part = max(bytes / 4 / seat.size, 1)
        let input = try tensor(memory, .f32, Shape(part)) { value(seat.rank, $0) }
        let output = try tensor(memory, .f32, Shape(part * seat.size)) { _ in 99 }
        return Trial(operations: [.allGather(input, into: output)], output: output) { value($0 / part, $0 % part) }
    }

    private static let broadcast = CollectiveCheck(name: "broadcast", dtype: .u8) { seat, memory, bytes in
        let root = seat.size - 1
        let tensor = try tensor(memory, .u8, Shape(max(bytes, 1))) { seat.rank == root ? value(root, $0) + 5 : 99 }
        return Trial(operations: [.broadcast(tensor, root: root)], output: tensor) { value(root, $0) + 5 }
    }

    private static let allToAll = CollectiveCheck(name: "all-to-all", dtype: .f32) { seat, memory, bytes in
        let part = max(bytes / 4 / seat.size, 1)
        let input = try tensor(memory, .f32, Shape(part * seat.size)) { value(seat.rank, $0) }
        let output = try tensor(memory, .f32, Shape(part * seat.size)) { _ in 99 }
        return Trial(operations: [.allToAll(input, into: output, nil)], output: output) {
            value($0 / part, seat.rank * part + $0 % part)
        }
    }

    /// Rank `i` sends rank `j` as many rows as (i + j) mod N, of a size that makes the whole as many bytes as wanted.
    private static let unevenAllToAll = CollectiveCheck(name: "uneven all-to-all", dtype: .f32) { seat, memory, bytes in
        let (rank, size) = (seat.rank, seat.size)
        let width = 16
        let unit = max(bytes / 4 / width / max(size * (size - 1) / 2, 1), 1)
        let rows = (0..<size).map { (rank + $0) % size * unit }
        let total = rows.reduce(0, +)
        let input = try tensor(memory, .f32, Shape(total, width)) { value(rank, $0) }
        let output = try tensor(memory, .f32, Shape(total, width)) { _ in 99 }
        let starts = rows.reduce(into: [0]) { $0.append(($0.last ?? 0) + $1) }
        // Where the rows of rank `source` for this rank begin in its input.
        let origins = (0..<size).map { source in (0..<rank).reduce(0) { $0 + (source + $1) % size * unit } }
        let splits = RowSplits(sent: rows, received: rows)
        return Trial(operations: [.allToAll(input, into: output, splits)], output: output) { index in
            let source = (starts.firstIndex { $0 * width > index } ?? size) - 1
            return value(source, (origins[source] - starts[source]) * width + index)
        }
    }

    private static let ring = CollectiveCheck(name: "send and receive", dtype: .f32) { seat, memory, bytes in
        let (next, previous) = ((seat.rank + 1) % seat.size, (seat.rank + seat.size - 1) % seat.size)
        let count = max(bytes / 4, 1)
        let input = try tensor(memory, .f32, Shape(count)) { value(seat.rank, $0) }
        let output = try tensor(memory, .f32, Shape(count)) { _ in 99 }
        return Trial(
            operations: [.send(input, to: next), .receive(output, from: previous)], output: output
        ) { value(previous, $0) }
    }

    private static let barrier = CollectiveCheck(name: "barrier", dtype: .u8) { _, _, _ in
        Trial(operations: [.barrier], output: nil) { _ in 0 }
    }
}
