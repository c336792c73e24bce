import ApusCollectives
import ApusKernels
import ApusNN
import ApusTensor

// Shape letters: N ranks that tell each other k numbers each, G ranks of a node, M = N / G nodes.

/// Numbers on their way to the ranks that they are for.
struct PendingNumbers {
    /// (G M k) what passed through this rank, where numbers go by way of nodes: [sender's place in this node][receiver's
    /// node].
    var relayed: [Int] = []
    private let complete: () throws -> [Int]

    /// Numbers that `complete` waits for.
    init(_ complete: @escaping () throws -> [Int]) { self.complete = complete }

    /// Waits for what the ranks told this one: (N k), by sender.
    func wait() throws -> [Int] { try complete() }
}

extension Tape {
    /// Starts to tell every rank of `group` k numbers, of the (N k) `numbers`; a checkpointed block that keeps what is
    /// exchanged keeps them too.
    func startToTell(_ numbers: [Int], over group: any Collective, layer: Int?) throws -> PendingNumbers {
        let counts = try keeping(.allToAll) {
            try group.startCountExchange(
                backend.tensor(numbers.map(Int32.init), Shape(numbers.count)),
                into: backend.empty(Shape(numbers.count), .i32), after: backend.stream, layer: layer)
        }
        return PendingNumbers { [backend] in
            // A wait for the device's copy would neither end with the world nor say that there is nothing to copy.
            try counts.tensor.ready?.wait()
            return try backend.array(counts.tensor, of: Int32.self).map(Int.init)
        }
    }
}
