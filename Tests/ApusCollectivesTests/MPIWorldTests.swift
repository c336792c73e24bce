import ApusTensor
import Testing

@testable import ApusCollectives

/// What the communicators of a process share, with nobody behind it who would call MPI.
struct MPIWorldTests {
    private func collective(_ world: MPIWorld) throws -> MPICollective {
        let context = try #require(world.context(notIn: world.contextsInUse))
        return MPICollective(
            world, context, name: "world", rank: 1, members: [0, 1, 2], timeout: .seconds(2))
    }

    @Test func `calls are numbered by channel, and handed over in order`() throws {
        let world = MPIWorld(rank: 1, size: 3, library: "")
        let collective = try collective(world)
        let tensor = try CachingAllocator().untouched(Shape(4))
        _ = try collective.startBarrier(layer: 5)
        _ = try collective.startSend(tensor, to: 2)
        _ = try collective.startReceive(tensor, from: 2)
        _ = try collective.startAllReduce(tensor, into: tensor)
        let requests = try #require(world.takeInbox())
        #expect(requests.map(\.call.sequence) == [0, 0, 0, 1])
        #expect(requests.map(\.call.operation.kind) == [.barrier, .send, .receive, .allReduce])
        #expect(requests.map(\.call.channel.pair?.source) == [nil, 1, 2, nil])
        #expect(requests[0].call.layer == 5 && requests[0].call.rank == 1)
        #expect(world.takeInbox()?.isEmpty == true)
        let summary = world.summary(at: .now + .seconds(3))
        #expect(summary.waiting.count == 3)
        #expect(summary.overdue?.members == [0, 1, 2])
        #expect(summary.lastCall?.sequence == 1)
        // The end of a call is announced once, and the watch forgets it.
        world.complete(requests[0].identity, requests[0].event)
        world.complete(requests[0].identity, requests[0].event)
        #expect(requests[0].event.isComplete && !requests[1].event.isComplete)
        #expect(world.summary(at: .now).completed == 1)
    }

    @Test func `the end of the world fails what is waited for, and all that comes later`() throws {
        let world = MPIWorld(rank: 1, size: 3, library: "")
        let collective = try collective(world)
        let first = try collective.startBarrier()
        let second = try collective.startBarrier()
        let requests = try #require(world.takeInbox())
        let error = CollectiveError.timeout(requests[0].call, after: .seconds(2), missing: [])
        world.end(error)
        #expect(collectiveError { try first.wait() } == error)
        #expect(
            collectiveError { try second.wait() }
                == .aborted(communicator: "world", reason: error.description))
        #expect(world.takeInbox() == nil, "MPI is not to be called again")
        #expect(
            collectiveError { try collective.barrier() }
                == .aborted(communicator: "world", reason: error.description))
        // Neither a late end of a call nor a second verdict changes anything.
        world.complete(requests[0].identity, requests[0].event)
        world.end(.aborted(communicator: "world", reason: "later"))
        #expect(world.failure == error)
    }

    @Test func `ranks agree on members and on a context that none of them uses`() throws {
        let world = MPIWorld(rank: 0, size: 5, library: "")
        var held = try (0..<3).map { _ in try #require(world.context(notIn: world.contextsInUse)) }
        #expect(held.map(\.index) == [0, 1, 2])
        held.remove(at: 1)
        #expect(world.contextsInUse == 0b101)
        #expect(world.context(notIn: .max) == nil)
        let split = MPISplit(entry: .init(color: 7, key: 0, contexts: world.contextsInUse), size: 5)
        split.set([
            .init(color: 7, key: 0, contexts: 0b101), .init(color: nil, key: 0, contexts: 0b10),
            .init(color: 7, key: -1, contexts: 0b1001), .init(color: 0, key: 0, contexts: 1),
            .init(color: 7, key: 0, contexts: 1),
        ])
        let part = split.part(color: 7)
        #expect(part.places == [2, 0, 4])
        #expect(part.contexts == 0b1101)
        #expect(world.context(notIn: part.contexts)?.index == 1)
    }
}
