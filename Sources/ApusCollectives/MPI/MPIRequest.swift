import ApusTensor
import Synchronization

/// A call on its way to the progress thread.
struct MPIRequest: Sendable {
    /// What is to be done.
    enum Body: Sendable {
        case operation(CollectiveOperation)
        case split(MPISplit)
    }

    let call: CollectiveCall
    let place: CallNumbering.Place
    let body: Body
    let context: MPIContext
    /// The caller's rank in the communicator, whose ranks in the world are `members`.
    let rank: Int
    let members: [Int]
    let timeout: Duration
    let event = Event()
    /// What the log of calls knows it by, once it has been submitted.
    var identity = 0
}

/// One of the communicators that MPI knows, each a copy of the world made at the start: messages in one never meet those
/// of another. In use while anybody holds this.
///
/// Ranks that divide themselves agree on one that none of them uses. Groups without a common rank may use the same.
final class MPIContext: Sendable {
    /// How many there are.
    static let limit = 64

    let index: Int
    private let release: @Sendable (Int) -> Void

    init(index: Int, release: @escaping @Sendable (Int) -> Void) {
        self.index = index
        self.release = release
    }

    deinit { release(index) }
}

/// A rank's side of a split: what every rank says, gathered from all.
final class MPISplit: Sendable {
    /// What one rank says.
    struct Entry: BitwiseCopyable {
        let hasColor: Bool
        let color: Int
        let key: Int
        /// The contexts that it uses, a bit for each.
        let contexts: UInt64

        init(color: Int?, key: Int, contexts: UInt64) {
            hasColor = color != nil
            self.color = color ?? 0
            self.key = key
            self.contexts = contexts
        }
    }

    let own: Entry
    private let entries: Mutex<[Entry]>

    init(entry: Entry, size: Int) {
        own = entry
        entries = Mutex(Array(repeating: entry, count: size))
    }

    func set(_ values: [Entry]) { entries.withLock { $0 = values } }

    /// The members of the part with `color`, by their ranks in what was divided, and the contexts that any of them uses.
    func part(color: Int) -> (places: [Int], contexts: UInt64) {
        let entries = entries.withLock { $0 }
        let places = entries.indices
            .filter { entries[$0].hasColor && entries[$0].color == color }
            .sorted { (entries[$0].key, $0) < (entries[$1].key, $1) }
        return (places, places.reduce(0) { $0 | entries[$1].contexts })
    }
}
