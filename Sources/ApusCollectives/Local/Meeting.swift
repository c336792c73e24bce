import ApusTensor
import Synchronization

/// The ranks that have come to one call, until the last one is there.
struct Meeting {
    /// Where a meeting takes place: the channel by the number of its communicator, and the call's number.
    struct Key: Hashable {
        let group: Int
        let pair: Channel.Pair?
        let sequence: Int
    }

    /// What a rank wants.
    enum Request: Sendable {
        case operation(CollectiveOperation)
        case split(SplitTicket)
    }

    /// One rank's side of a call.
    struct Arrival: Sendable {
        let call: CollectiveCall
        let request: Request
        let event: Event
    }

    let members: [Int]
    let timeout: Duration
    let deadline: ContinuousClock.Instant
    private(set) var arrivals: [Arrival?]
    private var absentees: Int

    init(members: [Int], timeout: Duration) {
        self.members = members
        self.timeout = timeout
        deadline = .now + timeout
        arrivals = Array(repeating: nil, count: members.count)
        absentees = members.count
    }

    var isComplete: Bool { absentees == 0 }

    /// The call of whoever came first by place.
    var firstCall: CollectiveCall? { arrivals.lazy.compactMap(\.self).first?.call }

    /// Takes the arrival in, unless it contradicts one that is there.
    mutating func admit(_ arrival: Arrival, at place: Int) throws(CollectiveError) {
        if let first = firstCall, !first.operation.agrees(with: arrival.call.operation) {
            throw .mismatch(first, arrival.call, detail: nil)
        }
        precondition(arrivals[place] == nil, "a rank makes its calls from one thread")
        arrivals[place] = arrival
        absentees -= 1
        guard isComplete, let disagreement = DataMovement.disagreement(in: operations) else { return }
        let (sender, receiver, sent, expected) = disagreement
        guard let from = arrivals[sender]?.call, let to = arrivals[receiver]?.call else { return }
        throw .mismatch(
            from, to, detail: "rank \(from.rank) sends \(sent) rows to rank \(to.rank), which expects \(expected)")
    }

    /// The operations of those present, in the order of ranks.
    var operations: [CollectiveOperation] {
        arrivals.compactMap { arrival in
            if case .operation(let operation) = arrival?.request { operation } else { nil }
        }
    }

    /// The events of those present.
    var events: [Event] { arrivals.compactMap { $0?.event } }
}

/// A rank's side of a split, and its seat in a part once all have come.
final class SplitTicket: Sendable {
    let color: Int?
    let key: Int
    let seat = Mutex<Seat?>(nil)

    /// A place in a part: `places` are the members' ranks in the communicator that was divided.
    struct Seat {
        let group: Int
        let rank: Int
        let places: [Int]
    }

    init(color: Int?, key: Int) {
        self.color = color
        self.key = key
    }

    /// Seats everybody who has a color; `newGroup` numbers a part.
    static func seat(_ tickets: [SplitTicket], newGroup: () -> Int) {
        for color in Set(tickets.compactMap(\.color)).sorted() {
            let places = tickets.indices
                .filter { tickets[$0].color == color }
                .sorted { (tickets[$0].key, $0) < (tickets[$1].key, $1) }
            let group = newGroup()
            for (rank, place) in places.enumerated() {
                tickets[place].seat.withLock { $0 = Seat(group: group, rank: rank, places: places) }
            }
        }
    }
}
