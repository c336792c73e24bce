/// What a schedule may know of a tape: each node's kind and which nodes consume its outputs.
public struct TapeGraph {
    /// Names of the recorded nodes, in the order of recording.
    public let names: [String]
    /// Kinds of the recorded nodes.
    public let kinds: [Tape.NodeKind]
    /// For each node, the nodes that made its inputs.
    public let producers: [[Int]]

    init(nodes: [Tape.Node], producers: [Int]) {
        names = nodes.map(\.name)
        kinds = nodes.map(\.kind)
        self.producers = nodes.map { $0.inputs.map { producers[$0] }.filter { $0 >= 0 } }
    }
}

/// The order in which backward visits the nodes.
public enum BackwardSchedule: Sendable {
    /// Last recorded, first visited.
    case reverse
    /// Starts exchanges as early as the gradients allow and waits for them as late as possible, with computation in
    /// between: what lets ScMoE hide its all-to-all in backward (ScMoE section 3).
    case overlapping
    /// Any order computed from the graph.
    case custom(@Sendable (TapeGraph) -> [Int])

    func order(of graph: TapeGraph) -> [Int] {
        let order: [Int]
        switch self {
        case .reverse: return Array((0..<graph.kinds.count).reversed())
        case .overlapping: order = BackwardSchedule.overlappingOrder(graph)
        case .custom(let make): order = make(graph)
        }
        precondition(
            BackwardSchedule.isValid(order, for: graph), "a schedule visits every consumer before its producer")
        return order
    }

    private static func overlappingOrder(_ graph: TapeGraph) -> [Int] {
        var waitingFor = consumerCounts(graph)
        var ready = waitingFor.indices.filter { waitingFor[$0] == 0 }
        var order: [Int] = []
        while let next = ready.max(by: { urgency($0, graph) < urgency($1, graph) }) {
            ready.removeAll { $0 == next }
            order.append(next)
            for producer in graph.producers[next] {
                waitingFor[producer] -= 1
                if waitingFor[producer] == 0 { ready.append(producer) }
            }
        }
        return order
    }

    /// First by kind (the adjoint of a finish begins an exchange; that of a start blocks), then last recorded first.
    private static func urgency(_ node: Int, _ graph: TapeGraph) -> Int {
        let rank =
            switch graph.kinds[node] {
            case .finish: 2
            case .compute: 1
            case .start: 0
            }
        return rank * graph.kinds.count + node
    }

    private static func consumerCounts(_ graph: TapeGraph) -> [Int] {
        var counts = Array(repeating: 0, count: graph.kinds.count)
        for producers in graph.producers { for producer in producers { counts[producer] += 1 } }
        return counts
    }

    private static func isValid(_ order: [Int], for graph: TapeGraph) -> Bool {
        guard order.count == graph.kinds.count, Set(order).count == order.count,
            order.allSatisfy(graph.kinds.indices.contains)
        else { return false }
        var waitingFor = consumerCounts(graph)
        for node in order {
            guard waitingFor[node] == 0 else { return false }
            for producer in graph.producers[node] { waitingFor[producer] -= 1 }
        }
        return true
    }
}
