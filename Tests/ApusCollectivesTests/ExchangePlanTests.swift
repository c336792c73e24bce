import ApusTensor
import ApusTestSupport
import Testing

@testable import ApusCollectives

/// The messages of every operation, carried by hand between the memories of one process.
struct ExchangePlanTests {
    /// Carries all messages until every rank is through, the ranks going on in the order that `next` says.
    private func carry(_ plans: [ExchangePlan], next: (Int) -> Int) throws {
        var steps = Array(repeating: -1, count: plans.count)
        var awaited: [[ExchangePlan.Message]] = Array(repeating: [], count: plans.count)
        /// Bytes on their way, by sender and receiver.
        var underWay: [[[UInt8]]] = Array(repeating: [], count: plans.count * plans.count)
        var idle = 0
        while let unfinished = steps.indices.filter({ steps[$0] < plans[$0].stepCount }).nonEmpty {
            let rank = unfinished[next(unfinished.count)]
            var moved = false
            awaited[rank].removeAll { message in
                let lane = message.peer * plans.count + rank
                guard let bytes = underWay[lane].first else { return false }
                underWay[lane].removeFirst()
                #expect(bytes.count == message.byteCount)
                bytes.withUnsafeBytes { source in
                    if let base = source.baseAddress { message.address.copyMemory(from: base, byteCount: bytes.count) }
                }
                moved = true
                return true
            }
            if awaited[rank].isEmpty {
                steps[rank] += 1
                let step = plans[rank].step(steps[rank])
                #expect(steps[rank] < plans[rank].stepCount || step.sends.isEmpty && step.receives.isEmpty)
                awaited[rank] = step.receives
                for message in step.sends {
                    #expect(message.peer != rank)
                    underWay[rank * plans.count + message.peer].append(
                        Array(UnsafeRawBufferPointer(start: message.address, count: message.byteCount)))
                }
                moved = true
            }
            idle = moved ? 0 : idle + 1
            try #require(idle < 1000, "nobody gets further: \(steps)")
        }
        #expect(underWay.allSatisfy { $0.isEmpty }, "messages were sent that nobody takes")
    }

    private struct Sides {
        let operations: [CollectiveOperation]
        var outputs: [[UInt8]] {
            operations.map { operation in
                guard let output = operation.output else { return [] }
                let bytes = output.dtype.byteCount(elements: output.count)
                return Array(UnsafeRawBufferPointer(start: output.rawPointer, count: bytes))
            }
        }
    }

    /// What each of `size` ranks does in a random operation; the same for the same seed.
    private func sides(_ name: String, _ size: Int, _ seed: UInt64) throws -> Sides {
        var generator = SeededGenerator(seed: seed)
        let memory = CachingAllocator()
        let count = Int.random(in: 0...60, using: &generator)
        let dtypes: [DType] = name == "movement" ? [.u8, .bf16, .f32] : [.f32, .bf16, .i32]
        let dtype = dtypes.randomElement(using: &generator) ?? .f32
        let reduction: Reduction = Bool.random(using: &generator) ? .sum : .max
        let root = Int.random(in: 0..<size, using: &generator)
        let isInPlace = Bool.random(using: &generator)
        let rows = (0..<size).map { _ in (0..<size).map { _ in Int.random(in: 0...3, using: &generator) } }
        let kind = Int.random(in: 0..<4, using: &generator)
        let random = { (shape: Shape) throws -> Tensor in
            let values = (0..<shape.count).map { _ in Float.random(in: -1e3...1e3, using: &generator) }
            switch dtype {
            case .f32: return try memory.tensor(values, shape)
            case .bf16: return try memory.tensor(values.map { UInt16($0.bitPattern >> 16) }, shape)
            case .i32: return try memory.tensor(values.map { Int32($0) }, shape)
            case .u8: return try memory.tensor(values.map { UInt8(truncatingIfNeeded: Int($0)) }, shape)
            }
        }
        return Sides(
            operations: try (0..<size).map { rank in
                switch (name, kind) {
                case ("reduction", 0), ("reduction", 1):
                    let input = try random(Shape(count))
                    return .allReduce(input, reduction, into: isInPlace ? input : try random(Shape(count)))
                case ("reduction", _):
                    return .reduceScatter(try random(Shape(count * size)), reduction, into: try random(Shape(count)))
                case (_, 0): return .allGather(try random(Shape(count)), into: try random(Shape(count * size)))
                case (_, 1): return .broadcast(try random(Shape(count)), root: root)
                case (_, 2):
                    return .allToAll(try random(Shape(count * size)), into: try random(Shape(count * size)), nil)
                default:
                    let splits = RowSplits(sent: rows[rank], received: rows.map { $0[rank] })
                    let width = count % 5 + 1
                    let input = try random(Shape(splits.sent.reduce(0, +) + 1, width))
                    let output = try random(Shape(splits.received.reduce(0, +) + 2, width))
                    return .allToAll(input, into: output, splits)
                }
            })
    }

    @Test(arguments: [1, 2, 3, 4, 7], ["reduction", "movement"])
    func `give every operation's result to the bit, in any order and in segments`(size: Int, name: String) throws {
        for seed in 0..<60 as Range<UInt64> {
            let expected = try sides(name, size, seed)
            DataMovement.perform(expected.operations)
            let actual = try sides(name, size, seed)
            // Segments of a few elements, with and without the short way of few bytes.
            let plans = actual.operations.enumerated().map { rank, operation in
                ExchangePlan(
                    operation,
                    ExchangeSeat(
                        rank: rank, size: size, segmentBytes: 40, directBytes: seed % 3 == 0 ? 1 << 10 : 0,
                        workspace: Workspace()))
            }
            var generator = SeededGenerator(seed: seed &+ 99)
            try carry(plans) { Int.random(in: 0..<$0, using: &generator) }
            #expect(actual.outputs == expected.outputs, "seed \(seed): \(expected.operations[0])")
        }
    }

    @Test(arguments: 1...9)
    func `let nobody through a barrier before all have come`(size: Int) throws {
        let plans = (0..<size).map {
            ExchangePlan(.barrier, ExchangeSeat(rank: $0, size: size, workspace: Workspace()))
        }
        var turn = 0
        try carry(plans) { count in
            turn += 1
            return turn % count
        }
        // Whoever hears from whom, and from whom that one has heard by then.
        var heard = (0..<size).map { Set([$0]) }
        for step in 0..<plans[0].stepCount {
            heard = (0..<size).map { rank in
                plans[rank].step(step).receives.reduce(into: heard[rank]) { $0.formUnion(heard[$1.peer]) }
            }
        }
        #expect(heard.allSatisfy { $0.count == size })
    }

    @Test func `cut long messages in pieces that follow each other`() throws {
        let address = try #require(UnsafeMutableRawPointer(bitPattern: 64))
        let message = ExchangePlan.Message(peer: 3, address: address, byteCount: 5 << 30)
        let pieces = message.pieces(largest: 1 << 30)
        #expect(pieces.map(\.byteCount) == Array(repeating: 1 << 30, count: 5))
        #expect(pieces.map { $0.address - address } == (0..<5).map { $0 << 30 })
        #expect(pieces.allSatisfy { $0.peer == 3 })
        let short = ExchangePlan.Message(peer: 0, address: address, byteCount: 10).pieces(largest: 4)
        #expect(short.map(\.byteCount) == [4, 4, 2])
        #expect(ExchangePlan.Message(peer: 0, address: address, byteCount: 0).pieces(largest: 4).count == 1)
    }

    @Test func `take no more workspace than a segment`() throws {
        let memory = CachingAllocator()
        let tensor = try memory.untouched(Shape(1 << 16), .f32)
        let workspace = Workspace()
        let seat = ExchangeSeat(rank: 1, size: 4, segmentBytes: 4096, directBytes: 0, workspace: workspace)
        let plan = ExchangePlan(.allReduce(tensor, .sum, into: tensor), seat)
        #expect(plan.stepCount == (1 << 16) * 4 / 4096 + 1)
        let outside = (0..<plan.stepCount - 1).flatMap { plan.step($0).receives.map(\.address) }.filter {
            $0 < tensor.rawPointer || $0 >= tensor.rawPointer + (1 << 18)
        }
        let lowest = try #require(outside.min())
        let highest = try #require(outside.max())
        #expect(highest - lowest < 4096)
    }
}

extension Array {
    fileprivate var nonEmpty: Self? { isEmpty ? nil : self }
}
