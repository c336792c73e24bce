public import ApusCollectives
import ApusKernels
import ApusNN
import ApusTensor

// Shape letters: N ranks of the group, G ranks of a node, M = N / G nodes; k numbers that are told to each rank.

/// The two all-to-alls that together do the work of one among N ranks on M nodes (DeepSpeed-MoE section 5.3).
///
/// Rank `m G + g` of the group is rank `g` of node `m`.
/// 1. Rows are put in order of the receiver's place in its node, [m][g] to [g][m].
/// 2. Within the node: rank `g` gets what all of its node have for ranks `g` of all nodes.
/// 3. These rows are put in order of the receiver's node, [sender g][m] to [m][sender g].
/// 4. Across nodes, among ranks of equal place: rows arrive in the order of their senders, as from one all-to-all.
///
/// A rank sends N / G + G messages instead of N, and those between nodes are G times longer. Every row moves twice, so
/// that this is for many ranks and few rows each, where the number of messages is what takes time. The way back is the
/// same backwards; so are the adjoints of both. The hop across nodes is the one that is left under way.
///
/// Such a value is made once for a group, by all of its ranks, and shared by the layers that use it.
public struct HierarchicalAllToAll: Sendable {
    /// The ranks of this rank's node, G.
    public let node: any Collective
    /// The ranks with this rank's place in their nodes, M.
    public let across: any Collective

    /// Splits `group` into nodes. Blocks; every rank of the group takes part.
    ///
    /// - Parameters:
    ///   - group: The ranks that exchange rows.
    ///   - ranksPerNode: Ranks of the *world* on each node, in the order of the world; members of a group on the same
    ///     node are found by it. Any number will do to try the exchange on one machine.
    /// - Returns: `nil` where one flat all-to-all must do: when the group lies in one node, when it has one rank on each,
    ///   and when its nodes have not equally many of its ranks, one node's after the other's.
    /// - Throws: ``CollectiveError``.
    public init?(over group: any Collective, ranksPerNode: Int) throws {
        precondition(ranksPerNode >= 1, "\(ranksPerNode) ranks on a node")
        let nodes = group.members.map { $0 / ranksPerNode }
        let size = nodes.prefix { $0 == nodes[0] }.count
        let runs = stride(from: 0, to: nodes.count, by: size).map { Set(nodes[$0..<min($0 + size, nodes.count)]) }
        guard size > 1, size < nodes.count, nodes.count.isMultiple(of: size), runs.allSatisfy({ $0.count == 1 }),
            Set(runs).count == runs.count,
            let node = try group.split(name: "node", color: group.rank / size),
            let across = try group.split(name: "across", color: group.rank % size)
        else { return nil }
        self.node = node
        self.across = across
    }

    /// Starts to tell every rank of the group k numbers, of the (N k) `numbers`: within the node at once, across nodes
    /// while the caller goes on.
    func startToTell(_ numbers: [Int], layer: Int?, on tape: Tape) throws -> PendingNumbers {
        let k = numbers.count / (node.size * across.size)
        let relayed = try tape.startToTell(
            transposed(numbers, rows: across.size, of: k), over: node, layer: layer
        ).wait()
        var pending = try tape.startToTell(
            transposed(relayed, rows: node.size, of: k), over: across, layer: layer)
        pending.relayed = relayed
        return pending
    }

    /// The way of rows.
    ///
    /// - Parameters:
    ///   - splits: Rows for and from each rank of the group.
    ///   - relayed: (G M) rows that pass through this rank, [sender's place in this node][receiver's node].
    ///   - isEven: Whether all of these numbers are the same on every rank.
    func path(_ splits: RowSplits, relayed: [Int], isEven: Bool, _ backend: any Backend) throws -> RowPath {
        let (sent, received) = (matrix(splits.sent, node.size), matrix(splits.received, node.size))
        let relayed = matrix(relayed, across.size)
        let within = RowSplits(
            sent: (0..<node.size).map { place in sent.reduce(0) { $0 + $1[place] } }, received: relayed.map(total))
        let between = RowSplits(
            sent: (0..<across.size).map { node in relayed.reduce(0) { $0 + $1[node] } }, received: received.map(total))
        return RowPath(
            hops: [
                RowPath.Hop(group: node, splits: isEven ? nil : within),
                RowPath.Hop(group: across, splits: isEven ? nil : between),
            ],
            orders: [try .transposing(sent, backend), try .transposing(relayed, backend), nil], slowest: 1)
    }

    private func total(_ numbers: [Int]) -> Int { numbers.reduce(0, +) }

    private func matrix(_ numbers: [Int], _ columns: Int) -> [[Int]] {
        stride(from: 0, to: numbers.count, by: columns).map { Array(numbers[$0..<$0 + columns]) }
    }

    /// A matrix of `rows` rows, each of whose elements is k numbers.
    private func transposed(_ numbers: [Int], rows: Int, of k: Int) -> [Int] {
        let columns = numbers.count / (rows * k)
        var result: [Int] = []
        result.reserveCapacity(numbers.count)
        for column in 0..<columns {
            for row in 0..<rows {
                let first = (row * columns + column) * k
                result += numbers[first..<first + k]
            }
        }
        return result
    }
}

extension RowOrder {
    /// Runs of rows, of which there are `lengths[i][j]` and that lie by `i` and then by `j`, put in order of `j` and then
    /// `i`; `nil` when that changes nothing.
    fileprivate static func transposing(_ lengths: [[Int]], _ backend: any Backend) throws -> RowOrder? {
        var end = 0
        let starts = lengths.map { lengths in
            lengths.map { length in
                defer { end += length }
                return end
            }
        }
        var places: [Int32] = []
        places.reserveCapacity(end)
        var rows = Array(repeating: Int32(0), count: end)
        for second in lengths[0].indices {
            for first in lengths.indices {
                let start = starts[first][second]
                for place in start..<start + lengths[first][second] {
                    rows[place] = Int32(places.count)
                    places.append(Int32(place))
                }
            }
        }
        if places.enumerated().allSatisfy({ $0.offset == $0.element }) { return nil }
        return RowOrder(places: try backend.tensor(places, Shape(end)), rows: try backend.tensor(rows, Shape(end)))
    }
}
