import ApusTensor
import Testing

@testable import ApusCollectives

/// Ranks that do not come, that come to something else, or that fail.
@Suite(.serialized)
struct FailureTests {
    private struct RankFailure: Error, Equatable {
        let rank: Int
    }

    @Test
    func `a time-out names who is missing, and where it was last seen`() throws {
        let started = ContinuousClock.now
        let error = collectiveError {
            _ = try InProcess.run(ranks: 4, timeout: .seconds(2)) { world in
                let part = try #require(try world.split(name: "expert", color: 0))
                let tensor = try CachingAllocator().whole([1], .f32)
                try world.allReduce(tensor, into: tensor, layer: 1)
                if world.rank == 3 { try world.barrier(layer: 2) }
                if world.rank != 1 { try part.allReduce(tensor, into: tensor, layer: 5) }
            }
        }
        // Rank 3's barrier and the others' all-reduce wait for the same time; either may be reported.
        guard case .timeout(let call, let time, let missing)? = error else {
            Issue.record("no time-out: \(String(describing: error))")
            return
        }
        #expect(time == .seconds(2))
        #expect(started.duration(to: .now) < .seconds(20))
        if call.rank == 3 {
            #expect(missing.map(\.rank) == [0, 1, 2])
        } else {
            #expect(call.channel.communicator == "expert.0")
            #expect(call.sequence == 0)
            #expect(call.layer == 5)
            #expect(missing.map(\.rank) == [1, 3])
            #expect(missing[0].lastCall?.operation.kind == .allReduce)
            #expect(missing[0].lastCall?.layer == 1)
            #expect(missing[1].lastCall?.operation.kind == .barrier)
            let text = "\(try #require(error))"
            #expect(text.contains("all-reduce (sum) of 1 f32, call 0 on expert.0, layer 5"))
            #expect(text.contains("missing: rank 1 (last seen in all-reduce (sum) of 1 f32, call 1 on world, layer 1)"))
            #expect(text.contains("rank 3 (last seen in barrier, call 2 on world, layer 2)"))
        }
    }

    @Test
    func `every waiting rank learns of a time-out, and a late one that all is over`() throws {
        let errors = try InProcess.run(ranks: 3, timeout: .milliseconds(500)) { world -> [CollectiveError?] in
            if world.rank == 2 { pause(milliseconds: 1500) }
            return [collectiveError { try world.barrier() }, collectiveError { try world.barrier() }]
        }
        for rank in 0..<2 {
            guard case .timeout(_, _, let missing)? = errors[rank][0] else {
                Issue.record("rank \(rank): \(String(describing: errors[rank][0]))")
                continue
            }
            #expect(missing == [MissingRank(rank: 2, lastCall: nil)])
        }
        for error in errors.map({ $0[1] }) + [errors[2][0]] {
            guard case .aborted("world", let reason)? = error else {
                Issue.record("not aborted: \(String(describing: error))")
                continue
            }
            #expect(reason.contains("missing: rank 2 (no call so far)"))
        }
    }

    @Test
    func `a receive that nobody sends names the sender`() throws {
        let error = collectiveError {
            _ = try InProcess.run(ranks: 3, timeout: .milliseconds(100)) { world in
                if world.rank == 2 { try world.receive(CachingAllocator().untouched(Shape(4)), from: 1) }
            }
        }
        guard case .timeout(let call, _, let missing)? = error else {
            Issue.record("no time-out: \(String(describing: error))")
            return
        }
        #expect(call.channel.description == "world from rank 1 to rank 2")
        #expect(missing.map(\.rank) == [1])
    }

    @Test(arguments: [
        "all-reduce (sum) of 4 f32|barrier", "all-reduce (sum) of 4 f32|all-reduce (max) of 4 f32",
        "all-reduce (sum) of 4 f32|all-reduce (sum) of 5 f32", "all-reduce (sum) of 4 f32|all-reduce (sum) of 4 i32",
        "broadcast of 4 f32 from root 0|broadcast of 4 f32 from root 1", "split 'expert'|split 'data'",
    ])
    func `different calls under one number are both named`(calls: String) throws {
        let names = calls.split(separator: "|").map(String.init)
        let error = collectiveError {
            _ = try InProcess.run(ranks: 2) { world in
                let memory = CachingAllocator()
                let four = try memory.whole([1, 2, 3, 4], .f32)
                switch names[world.rank] {
                case "barrier": try world.barrier(layer: 6)
                case "all-reduce (sum) of 4 f32": try world.allReduce(four, into: four)
                case "all-reduce (max) of 4 f32": try world.allReduce(four, .max, into: four)
                case "all-reduce (sum) of 5 f32":
                    let five = try memory.untouched(Shape(5), .f32)
                    try world.allReduce(five, into: five)
                case "all-reduce (sum) of 4 i32":
                    let whole = try memory.untouched(Shape(4))
                    try world.allReduce(whole, into: whole)
                case "split 'expert'": _ = try world.split(name: "expert", color: 0)
                case "split 'data'": _ = try world.split(name: "data", color: 0)
                default: try world.broadcast(four, root: world.rank)
                }
            }
        }
        guard case .mismatch(let first, let second, nil)? = error else {
            Issue.record("no mismatch: \(String(describing: error))")
            return
        }
        let called = [first, second].sorted { $0.rank < $1.rank }
        #expect(called.map(\.rank) == [0, 1])
        #expect(called.map(\.operation.description) == names)
        let text = "\(try #require(error))"
        #expect(names.allSatisfy(text.contains))
        #expect(text.contains("on world, call 0"))
    }

    @Test
    func `rows sent and rows expected must agree`() throws {
        let error = collectiveError {
            _ = try InProcess.run(ranks: 3) { world in
                let memory = CachingAllocator()
                let rows = try memory.untouched(Shape(6, 2), .f32)
                let output = try memory.untouched(Shape(6, 2), .f32)
                let splits = RowSplits(sent: [1, 2, 3], received: Array(repeating: world.rank + 1, count: 3))
                let wrong = RowSplits(sent: [1, 2, 3], received: [3, 1, 2])
                try world.allToAll(rows, into: output, splits: world.rank == 2 ? wrong : splits)
            }
        }
        guard case .mismatch(let first, let second, let detail?)? = error else {
            Issue.record("no mismatch: \(String(describing: error))")
            return
        }
        #expect([first.rank, second.rank] == [1, 2])
        #expect(detail == "rank 1 sends 3 rows to rank 2, which expects 1")
    }

    @Test
    func `the first rank to throw is the one that is heard`() throws {
        #expect(throws: RankFailure(rank: 1)) {
            try InProcess.run(ranks: 4) { world in
                try world.barrier()
                if world.rank == 1 { throw RankFailure(rank: 1) }
                let part = try world.split(name: "part", color: 0)
                try part?.barrier()
            }
        }
    }

    @Test
    func `an abort ends transfers under way on every communicator`() throws {
        let delay = TransferDelay(perOperation: .seconds(30))
        let started = ContinuousClock.now
        let errors = try InProcess.run(ranks: 2, delay: delay) { world -> [CollectiveError?] in
            let part = try #require(try world.split(name: "part", color: world.rank))
            let tensor = try CachingAllocator().whole([1], .f32)
            // A rank that is slow to start hears of the abort in its start, the others from their events.
            let pending = [world, part].map { part in
                Result { try part.start(.allReduce(tensor, .sum, into: tensor), after: .cpu, layer: nil) }
            }
            if world.rank == 0 {
                pause(milliseconds: 100)
                world.abort(reason: "enough")
            }
            return pending.map { event in collectiveError { try event.get().wait() } }
        }
        #expect(started.duration(to: .now) < .seconds(20))
        for (rank, error) in errors.enumerated() {
            let names = ["world", "part.\(rank)"]
            #expect(error == names.map { .aborted(communicator: $0, reason: "enough") })
        }
    }

    @Test
    func `the board tells the latest call of each rank`() throws {
        _ = try InProcess.run(ranks: 2) { world in
            let tensor = try CachingAllocator().whole([1], .f32)
            try world.barrier()
            try world.allReduce(tensor, into: tensor, layer: 4)
            let call = try #require(world.board.lastCalls[world.rank])
            #expect(call.sequence == 1)
            #expect(call.layer == 4)
            #expect(call.operation.kind == .allReduce)
            #expect(call.channel.communicator == "world")
            #expect(call.time <= .now)
        }
    }
}
