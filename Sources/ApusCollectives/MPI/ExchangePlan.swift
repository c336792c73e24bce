import ApusTensor

/// What one rank sends and receives in an operation, in steps: every operation is messages between pairs of ranks and
/// local work between them.
///
/// 1. All ranks make the same steps, so that between two ranks messages meet in the order in which they are sent.
/// 2. A step's messages may go in any order. The next step begins when all of them are over.
///
/// Building on messages alone lets this side sum in the order of ranks, in f32, which MPI's own reductions leave open,
/// and lets any number of operations be under way without one holding up another.
struct ExchangePlan {
    /// Bytes at an address of this process that come from `peer`, or go there; a rank of the communicator.
    struct Message {
        let peer: Int
        let address: UnsafeMutableRawPointer
        let byteCount: Int

        /// The same bytes as messages of at most `largest` each; one without bytes stays one.
        func pieces(largest: Int) -> [Message] {
            if byteCount <= largest { return [self] }
            return stride(from: 0, to: byteCount, by: largest).map {
                Message(peer: peer, address: address + $0, byteCount: min(byteCount - $0, largest))
            }
        }
    }

    /// Messages that are under way together.
    struct Step {
        var receives: [Message] = []
        var sends: [Message] = []
    }

    /// Number of steps.
    let stepCount: Int
    /// Does the local work that is due and returns the messages of a step. Called for 0, 1, ... in turn, each time when
    /// the step before is over; for ``stepCount`` it does the last local work.
    let step: (Int) -> Step

    init(stepCount: Int, step: @escaping (Int) -> Step) {
        self.stepCount = stepCount
        self.step = step
    }
}

/// Whose plan it is: a rank among others, and the memory that it may use.
struct ExchangeSeat {
    let rank: Int
    let size: Int
    /// Bytes that a reduction moves at a time, and so the most workspace that it takes.
    var segmentBytes = 8 << 20
    /// Bytes below which every rank sends all it has to every other: one step instead of two.
    var directBytes = 32 << 10
    let workspace: Workspace

    /// The other ranks, each rank beginning with the next one, so that no rank is everybody's first.
    var peers: [Int] { (1..<max(size, 1)).map { (rank + $0) % size } }

    /// Part `index` of `count` things cut as evenly as they go.
    func part(_ index: Int, of count: Int) -> Range<Int> { count * index / size..<count * (index + 1) / size }
}

/// Memory for what arrives and is not yet summed, kept from one operation to the next; for one thread.
final class Workspace {
    private var free: [UnsafeMutableRawBufferPointer] = []

    /// Memory that goes back with the last reference to it.
    final class Block {
        let address: UnsafeMutableRawPointer
        private let buffer: UnsafeMutableRawBufferPointer
        private let owner: Workspace

        fileprivate init(_ buffer: UnsafeMutableRawBufferPointer, _ owner: Workspace) {
            self.buffer = buffer
            self.owner = owner
            address = buffer.baseAddress.unsafelyUnwrapped
        }

        deinit { owner.put(buffer) }
    }

    /// Blocks kept for reuse; what operations need at once beyond that goes back to the system.
    private static let kept = 4

    /// At least `byteCount` bytes.
    func take(_ byteCount: Int) -> Block {
        if let index = free.firstIndex(where: { $0.count >= byteCount }) { return Block(free.remove(at: index), self) }
        return Block(.allocate(byteCount: max(byteCount, 64), alignment: 64), self)
    }

    private func put(_ buffer: UnsafeMutableRawBufferPointer) {
        free.append(buffer)
        guard free.count > Workspace.kept else { return }
        // The smallest goes: a larger one serves its requests too.
        if let index = free.indices.min(by: { free[$0].count < free[$1].count }) { free.remove(at: index).deallocate() }
    }

    deinit { for buffer in free { buffer.deallocate() } }
}
