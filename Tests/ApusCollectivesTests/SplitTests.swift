import ApusTensor
import Testing

@testable import ApusCollectives

/// Sub-communicators by color and key.
struct SplitTests {
    @Test
    func `parts of parts know their ranks, members and names`() throws {
        // Twelve ranks: tensor parallel pairs inside expert groups of four.
        let seats = try InProcess.run(ranks: 12) { world in
            let expert = try #require(try world.split(name: "expert", color: world.rank / 4))
            let tensor = try #require(try expert.split(name: "tensor", color: expert.rank / 2))
            let across = try #require(try world.split(name: "data", color: world.rank % 4))
            let memory = CachingAllocator()
            let sums = try [expert, tensor, across].map { part in
                let value = try memory.whole([world.rank], .i32)
                try part.allReduce(value, into: value)
                return value.wholeNumbers[0]
            }
            return (expert.name, tensor.name, tensor.rank, tensor.members, across.members, sums)
        }
        for (rank, seat) in seats.enumerated() {
            let group = rank / 4 * 4
            let pair = rank / 2 * 2
            #expect(seat.0 == "expert.\(rank / 4)")
            #expect(seat.1 == "expert.\(rank / 4)/tensor.\(rank % 4 / 2)")
            #expect(seat.2 == rank % 2)
            #expect(seat.3 == [pair, pair + 1])
            #expect(seat.4 == [rank % 4, rank % 4 + 4, rank % 4 + 8])
            #expect(seat.5 == [group * 4 + 6, pair * 2 + 1, rank % 4 * 3 + 12])
        }
    }

    @Test
    func `keys order the ranks, and no color means no part`() throws {
        let ranks = try InProcess.run(ranks: 5) { world -> [Int]? in
            let part = try world.split(
                name: "part", color: world.rank == 2 ? nil : 7, key: -world.rank, timeout: .seconds(9))
            guard let part else { return nil }
            #expect(part.timeout == .seconds(9))
            let order = try CachingAllocator().untouched(Shape(4))
            try part.allGather(CachingAllocator().whole([world.rank], .i32), into: order)
            #expect(order.wholeNumbers == part.members)
            return [part.rank]
        }
        #expect(ranks == [[3], [2], nil, [1], [0]])
    }

    @Test
    func `the same name twice gives two communicators`() throws {
        let names = try InProcess.run(ranks: 2) { world in
            let first = try #require(try world.split(name: "data", color: 0))
            let second = try #require(try world.split(name: "data", color: 0))
            try second.barrier()
            try first.barrier()
            return [first.name, second.name]
        }
        #expect(names[0] == ["data.0", "data.0#2"])
    }
}
