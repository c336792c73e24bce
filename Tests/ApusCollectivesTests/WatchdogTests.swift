import ApusTensor
import Glibc
import Synchronization
import Testing

@testable import ApusCollectives

/// Watchdogs of several ranks in one process, connected as those of several processes are.
struct WatchdogTests {
    /// What the watchdogs of a world said and did.
    private final class Notes: Sendable {
        let announced = Mutex<[(rank: Int, error: CollectiveError)]>([])
        let ended = Mutex<[Int: CollectiveError]>([:])

        var words: [Int] { announced.withLock { $0.map(\.rank) } }
        var ends: [Int: CollectiveError] { ended.withLock { $0 } }
    }

    /// Watchdogs of `size` ranks; `state` is what each tells of itself.
    private func world(
        _ size: Int, silence: Duration = .seconds(20), grace: Duration = .seconds(600), _ notes: Notes,
        exit: @escaping @Sendable () -> Void = {}, state: @escaping @Sendable (Int) -> RankState = { _ in RankState() }
    ) throws -> [Watchdog] {
        let (listener, address) = try WatchSocket.listen(isOneMachine: true)
        return try (0..<size).map { rank in
            let settings = Watchdog.Settings(
                rank: rank, size: size, silence: silence, grace: grace, token: address.token,
                announce: { error in notes.announced.withLock { $0.append((rank, error)) } }, exit: exit)
            let watchdog = watchdog(settings, notes) { state(rank) }
            if rank == 0 {
                watchdog.host(listener)
            } else {
                watchdog.join(try WatchSocket.connect(to: address, rank: rank, patience: .seconds(10)))
            }
            return watchdog
        }
    }

    private func watchdog(
        _ settings: Watchdog.Settings, _ notes: Notes, _ state: @escaping @Sendable () -> RankState = { RankState() }
    ) -> Watchdog {
        let rank = settings.rank
        return Watchdog(
            settings, summary: { _ in state() }, end: { error in notes.ended.withLock { $0[rank] = error } })
    }

    private func wait(_ condition: () -> Bool) {
        let deadline = ContinuousClock.now + .seconds(20)
        while !condition(), .now < deadline { usleep(1000) }
    }

    @Test func `one rank's failure ends all, and is said once`() throws {
        let notes = Notes()
        let dogs = try world(4, notes)
        let error = CollectiveError.aborted(communicator: "world", reason: "rank 2 failed: no disk")
        dogs[2].report(error)
        wait { notes.ends.count == 4 }
        #expect(notes.ends == [0: error, 1: error, 2: error, 3: error])
        #expect(notes.words == [0])
        #expect(dogs.allSatisfy { $0.verdict == error })
        for dog in dogs.reversed() { dog.stop() }
    }

    @Test func `a rank that comes after the failure is told of it`() throws {
        let notes = Notes()
        let (listener, address) = try WatchSocket.listen(isOneMachine: true)
        let settings = { (rank: Int) in
            Watchdog.Settings(
                rank: rank, size: 3, silence: .seconds(20), token: address.token,
                announce: { error in notes.announced.withLock { $0.append((rank, error)) } }, exit: {})
        }
        let host = watchdog(settings(0), notes)
        host.host(listener)
        let error = CollectiveError.aborted(communicator: "world", reason: "rank 0 failed: no recipe")
        host.report(error)
        wait { notes.ends.count == 1 }
        var dogs = [host]
        for rank in 1..<3 {
            #expect(!host.isAllTold)
            let guest = watchdog(settings(rank), notes)
            let connection = try WatchSocket.connect(to: address, rank: rank, patience: .seconds(10))
            // The verdict has come with the greeting.
            usleep(20_000)
            guest.join(connection)
            dogs.append(guest)
        }
        wait { notes.ends.count == 3 && host.isAllTold }
        #expect(notes.ends == [0: error, 1: error, 2: error])
        #expect(notes.words == [0] && host.isAllTold)
        for dog in dogs.reversed() { dog.stop() }
    }

    @Test func `a rank that waits for a watchdog that is slow to begin is not taken for lost`() throws {
        let notes = Notes()
        let (listener, address) = try WatchSocket.listen(isOneMachine: true)
        let settings = Watchdog.Settings(
            rank: 0, size: 2, silence: .seconds(20), token: address.token,
            announce: { error in notes.announced.withLock { $0.append((0, error)) } }, exit: {})
        let host = watchdog(settings, notes)
        let start = RankThread {
            pause(milliseconds: 400)
            host.host(listener)
        }
        let connection = try WatchSocket.connect(
            to: address, rank: 1, patience: .seconds(20), pause: .milliseconds(20))
        start.join()
        // Some looks of the host, each of which would find a connection that was given up.
        pause(milliseconds: 600)
        #expect(notes.ends.isEmpty, "\(notes.ends)")
        connection.send(.leaving)
        host.leave()
        host.stop()
    }

    @Test func `a rank that goes without a word ends all the others`() throws {
        let notes = Notes()
        let call = CollectiveCall(
            rank: 1, channel: Channel(communicator: "data.0", pair: nil), sequence: 4,
            operation: OperationSignature(kind: .barrier), layer: 9, time: .now)
        let (listener, address) = try WatchSocket.listen(isOneMachine: true)
        let settings = Watchdog.Settings(
            rank: 0, size: 2, silence: .seconds(20), token: address.token,
            announce: { error in notes.announced.withLock { $0.append((0, error)) } }, exit: {})
        let host = watchdog(settings, notes)
        host.host(listener)
        var connection: WatchConnection? = try WatchSocket.connect(to: address, rank: 1, patience: .seconds(10))
        connection?.send(.state(RankState(lastCall: call)))
        usleep(50_000)
        connection = nil
        wait { !notes.ends.isEmpty }
        guard case .lost(let ranks, _)? = notes.ends[0] else {
            Issue.record("\(notes.ends)")
            return
        }
        #expect(ranks.map(\.rank) == [1])
        #expect(ranks[0].condition == .ended)
        #expect(ranks[0].lastCall?.layer == 9)
        host.stop()
    }

    @Test func `when rank 0 goes every rank ends by itself, and one says why`() throws {
        let notes = Notes()
        let (listener, address) = try WatchSocket.listen(isOneMachine: true)
        // A rank 0 that greets and then closes.
        let guests = (1..<4).map { rank in
            let settings = Watchdog.Settings(
                rank: rank, size: 4, silence: .seconds(20), token: address.token,
                announce: { error in notes.announced.withLock { $0.append((rank, error)) } }, exit: {})
            return watchdog(settings, notes)
        }
        var accepted: [WatchConnection] = []
        for (index, guest) in guests.enumerated() {
            let greeter = Greeter(listener)
            guest.join(try WatchSocket.connect(to: address, rank: index + 1, patience: .seconds(10)))
            if let connection = greeter.connection { accepted.append(connection) }
        }
        try #require(accepted.count == 3)
        accepted = []
        wait { notes.ends.count == 3 }
        for error in notes.ends.values {
            guard case .lost(let ranks, _) = error else {
                Issue.record("\(error)")
                continue
            }
            #expect(ranks.map(\.rank) == [0] && ranks[0].condition == .ended)
        }
        #expect(notes.words.count == 1)
        for guest in guests { guest.stop() }
        close(listener)
    }

    @Test func `ranks that leave are not missed`() throws {
        let notes = Notes()
        let dogs = try world(3, notes)
        for dog in dogs { dog.leave() }
        for dog in dogs.reversed() { dog.stop() }
        #expect(notes.ends.isEmpty && notes.words.isEmpty)
    }

    @Test func `a rank that says nothing is given up`() throws {
        let notes = Notes()
        let (listener, address) = try WatchSocket.listen(isOneMachine: true)
        let settings = Watchdog.Settings(
            rank: 0, size: 2, silence: .milliseconds(600), token: address.token,
            announce: { error in notes.announced.withLock { $0.append((0, error)) } }, exit: {})
        let host = watchdog(settings, notes)
        host.host(listener)
        let connection = try WatchSocket.connect(to: address, rank: 1, patience: .seconds(10))
        wait { !notes.ends.isEmpty }
        guard case .lost(let ranks, _)? = notes.ends[0], case .silent? = ranks.first?.condition else {
            Issue.record("\(notes.ends)")
            return
        }
        #expect(ranks.map(\.rank) == [1])
        #expect(!connection.isClosed)
        host.stop()
    }

    @Test func `a process that does not end by itself is ended`() throws {
        let notes = Notes()
        let exits = Mutex(0)
        let dogs = try world(2, grace: .milliseconds(100), notes, exit: { exits.withLock { $0 += 1 } })
        dogs[0].report(.aborted(communicator: "world", reason: "test"))
        wait { exits.withLock { $0 } == 2 }
        let count = exits.withLock { $0 }
        #expect(count == 2)
        for dog in dogs.reversed() { dog.stop() }
    }

    @Test func `a stranger is not heard`() throws {
        let notes = Notes()
        let (listener, address) = try WatchSocket.listen(isOneMachine: true)
        let settings = Watchdog.Settings(
            rank: 0, size: 2, silence: .seconds(20), token: address.token,
            announce: { error in notes.announced.withLock { $0.append((0, error)) } }, exit: {})
        let host = watchdog(settings, notes)
        host.host(listener)
        let wrong = WatchAddress(
            token: address.token ^ 1, port: address.port, host: "elsewhere", addresses: ["127.0.0.1"])
        #expect(throws: MPIProblem.self) { try WatchSocket.connect(to: wrong, rank: 1, patience: .zero) }
        _ = try WatchSocket.connect(to: address, rank: 1, patience: .seconds(10))
        host.leave()
        host.stop()
    }
}

/// Accepts one connection, reads what it says and greets it, on a thread of its own.
private final class Greeter: Sendable {
    private let accepted = Mutex<Int32?>(nil)
    private let done = Event()

    init(_ listener: Int32) {
        RankThread { [accepted = self] in
            while true {
                let descriptor = accept(listener, nil, nil)
                if descriptor >= 0 {
                    let greeting = WatchFrame.alive(nil).bytes(at: .now)
                    _ = send(descriptor, greeting, greeting.count, Int32(MSG_NOSIGNAL))
                    accepted.set(descriptor)
                    return
                }
                usleep(1000)
            }
        }.detach()
    }

    private func set(_ descriptor: Int32) {
        accepted.withLock { $0 = descriptor }
        done.signal()
    }

    /// The connection, once there is one.
    var connection: WatchConnection? {
        try? done.wait()
        return accepted.withLock { $0 }.map { WatchConnection($0) }
    }
}
