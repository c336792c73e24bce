import ApusTensor
import Synchronization

/// What the ranks of an in-process world share: meetings, transfers on their way, and the thread that watches both.
final class InProcessWorld: Sendable {
    let board: StatusBoard
    private let delay: TransferDelay
    private let state = Mutex(State())
    private let alarm = Alarm()

    private struct State {
        var meetings: [Meeting.Key: Meeting] = [:]
        var transfers: [Transfer] = []
        var wireFreeAt: [Int: ContinuousClock.Instant] = [:]
        var nextWake: ContinuousClock.Instant?
        var groups = 1
        var failure: CollectiveError?
        var isStopping = false

        mutating func nextGroup() -> Int {
            defer { groups += 1 }
            return groups
        }
    }

    private struct Transfer {
        let due: ContinuousClock.Instant
        let meeting: Meeting
    }

    init(size: Int, delay: TransferDelay) {
        board = StatusBoard(size: size)
        self.delay = delay
    }

    /// Adds one rank's side to the meeting of its call.
    ///
    /// - Throws: ``CollectiveError`` when the world has failed, or fails by this arrival.
    func join(
        _ arrival: Meeting.Arrival, at place: Int, of group: Int, members: [Int], timeout: Duration
    ) throws(CollectiveError) {
        let call = arrival.call
        let key = Meeting.Key(group: group, pair: call.channel.pair, sequence: call.sequence)
        var completed: Meeting?
        let failure = state.withLock { state -> CollectiveError? in
            // Published under the lock, so that the watch never sees a rank that has come but is not yet counted.
            board.publish(call)
            if let failure = state.failure {
                return .aborted(communicator: call.channel.communicator, reason: failure.cause)
            }
            var meeting = state.meetings[key] ?? Meeting(members: members, timeout: timeout)
            do throws(CollectiveError) {
                try meeting.admit(arrival, at: place)
            } catch {
                return error
            }
            guard meeting.isComplete else {
                state.meetings[key] = meeting
                wake(at: meeting.deadline, &state)
                return nil
            }
            state.meetings[key] = nil
            let operations = meeting.operations
            let duration = delay.duration(byteCount: operations.map(\.byteCount).max() ?? 0)
            guard duration > .zero, !operations.isEmpty else {
                completed = meeting
                return nil
            }
            let due = max(.now, state.wireFreeAt[group] ?? .now) + duration
            state.wireFreeAt[group] = due
            state.transfers.append(Transfer(due: due, meeting: meeting))
            wake(at: due, &state)
            return nil
        }
        if let failure {
            if case .mismatch = failure { fail(failure) }
            throw failure
        }
        perform(&completed)
    }

    /// Ends the world: whoever waits, or will call, gets `error` or learns that the world was aborted because of it.
    func fail(_ error: CollectiveError) { end(error, isStopping: false) }

    /// Ends the progress thread, when every rank has returned.
    func stop() { end(.aborted(communicator: worldName, reason: "every rank has returned"), isStopping: true) }

    /// The progress thread: moves data when it is due, and ends the world when a meeting is late.
    func runProgress() {
        while true {
            var (due, late, nextWake, isStopping) = state.withLock { state in
                let now = ContinuousClock.now
                let due = state.transfers.filter { $0.due <= now }.sorted { $0.due < $1.due }
                state.transfers.removeAll { $0.due <= now }
                let late = state.meetings.values.filter { $0.deadline <= now }.min { $0.deadline < $1.deadline }
                state.nextWake = (state.transfers.map(\.due) + state.meetings.values.map(\.deadline)).min()
                return (due.map { Optional($0.meeting) }, late.flatMap(timeoutError), state.nextWake, state.isStopping)
            }
            if isStopping { return }
            for index in due.indices { perform(&due[index]) }
            if let late {
                fail(late)
            } else if due.isEmpty {
                alarm.sleep(until: nextWake)
            }
        }
    }

    private func timeoutError(_ meeting: Meeting) -> CollectiveError? {
        meeting.firstCall.map {
            .timeout($0, after: meeting.timeout, missing: board.missing(from: $0, among: meeting.members))
        }
    }

    private func wake(at time: ContinuousClock.Instant, _ state: inout State) {
        if let planned = state.nextWake, planned <= time { return }
        state.nextWake = time
        alarm.ring()
    }

    /// Moves the data and announces it.
    ///
    /// The tensors go before the events happen, so that whoever waits finds itself their only owner.
    private func perform(_ completed: inout Meeting?) {
        guard let events = completed.map(move) else { return }
        completed = nil
        for event in events { event.signal() }
    }

    private func move(_ meeting: Meeting) -> [Event] {
        let tickets = meeting.arrivals.compactMap { arrival in
            if case .split(let ticket) = arrival?.request { ticket } else { nil }
        }
        SplitTicket.seat(tickets) { state.withLock { $0.nextGroup() } }
        DataMovement.perform(meeting.operations)
        return meeting.events
    }

    private func end(_ error: CollectiveError, isStopping: Bool) {
        let abandoned = state.withLock { state in
            state.isStopping = state.isStopping || isStopping
            alarm.ring()
            if state.failure == nil { state.failure = error }
            let abandoned = state.meetings.values + state.transfers.map(\.meeting)
            state.meetings = [:]
            state.transfers = []
            return abandoned
        }
        for meeting in abandoned {
            for arrival in meeting.arrivals.compactMap(\.self) {
                arrival.event.signal(.failure(error.seen(by: arrival.call)))
            }
        }
    }
}
