import ApusModels
import ApusNN
import ApusTensor

/// What ranks hold, put together by tensor, on the way to a ``CheckpointPlan``.
struct PlanSearch {
    private let ranks: Int
    private var parameters: [String: [(rank: Int, held: HeldTensors.Weights)]] = [:]
    private var names: [String] = []
    private var holders: [StateKey: [Int]] = [:]
    private var states: [(key: StateKey, type: DType)] = []

    private struct StateKey: Hashable {
        let name: String
        let piece: StatePieceIndex.Piece
    }

    init(ranks: Int) { self.ranks = ranks }

    mutating func add(_ weights: HeldTensors.Weights, rank: Int) {
        if parameters[weights.name] == nil { names.append(weights.name) }
        parameters[weights.name, default: []].append((rank, weights))
    }

    mutating func add(_ state: HeldTensors.State, of weights: HeldTensors.Weights, rank: Int) {
        let key = StateKey(
            name: "\(state.kind).\(weights.name)",
            piece: StatePieceIndex.Piece(shape: weights.shape, shard: weights.shard, elements: state.elements))
        if holders[key] == nil { states.append((key, state.type)) }
        holders[key, default: []].append(rank)
    }

    /// Something to be written, by one of several ranks.
    private struct Choice {
        let place: Int
        let isState: Bool
        let bytes: Int
        let ranks: [Int]
    }

    consuming func assign(
        order: [String]
    ) throws(TrainingCheckpointError) -> ([CheckpointPlan.Weights], [CheckpointPlan.State]) {
        try checkStates()
        let places = Dictionary(order.enumerated().map { ($1, $0) }) { first, _ in first }
        let ordered = names.enumerated().sorted { left, right in
            (places[left.element] ?? order.count, left.offset) < (places[right.element] ?? order.count, right.offset)
        }.map(\.element)
        var found: [(held: HeldTensors.Weights, candidates: [Int], parts: [[Int]], shards: [Shard?])] = []
        for name in ordered { found.append(try cover(name)) }
        var choices = found.enumerated().map { place, entry in
            Choice(
                place: place, isState: false,
                bytes: entry.held.type.byteCount(elements: entry.held.shape.reduce(1, *)), ranks: entry.candidates)
        }
        choices += states.enumerated().map { place, state in
            Choice(
                place: place, isState: true, bytes: state.type.byteCount(elements: state.key.piece.elements.count),
                ranks: holders[state.key] ?? [])
        }
        // What only one rank has leaves no choice, and counts first.
        let given = choices.sorted { left, right in
            (left.ranks.count > 1 ? 1 : 0, -left.bytes, left.isState ? 1 : 0, left.place)
                < (right.ranks.count > 1 ? 1 : 0, -right.bytes, right.isState ? 1 : 0, right.place)
        }
        var load = Array(repeating: 0, count: ranks)
        var weightWriters = Array(repeating: 0, count: found.count)
        var stateWriters = Array(repeating: 0, count: states.count)
        for choice in given {
            let writer = choice.ranks.min { (load[$0], $0) < (load[$1], $1) } ?? 0
            load[writer] += choice.bytes
            if choice.isState { stateWriters[choice.place] = writer } else { weightWriters[choice.place] = writer }
        }
        let weights = zip(found, weightWriters).map { entry, writer in
            CheckpointPlan.Weights(
                name: entry.held.name, shape: entry.held.shape, type: entry.held.type, writer: writer,
                parts: zip(entry.parts, entry.shards).map { ranks, shard in
                    // A neighbour, where the writer has not got it itself.
                    (ranks.min { (abs($0 - writer), $0) < (abs($1 - writer), $1) } ?? writer, shard)
                })
        }
        let pieces = zip(states, stateWriters).map { state, writer in
            CheckpointPlan.State(
                name: state.key.name, piece: state.key.piece, type: state.type, writer: writer)
        }
        return (weights, pieces)
    }

    /// The parts of a parameter that make up the whole, each with the ranks that hold it.
    private func cover(
        _ name: String
    ) throws(TrainingCheckpointError) -> (
        held: HeldTensors.Weights, candidates: [Int], parts: [[Int]], shards: [Shard?]
    ) {
        let entries = parameters[name] ?? []
        guard let first = entries.first, entries.allSatisfy({ $0.held.shape == first.held.shape }) else {
            throw .incomplete(tensor: name)
        }
        let whole = entries.filter { $0.held.shard == nil }.map(\.rank)
        if !whole.isEmpty { return (first.held, whole, [whole], [nil]) }
        var parts: [[Int]] = []
        var shards: [Shard] = []
        for (rank, held) in entries.sorted(by: { $0.held.start < $1.held.start }) {
            guard let shard = held.shard else { continue }
            if shards.last == shard {
                parts[parts.count - 1].append(rank)
            } else {
                guard shard.range.lowerBound == (shards.last?.range.upperBound ?? 0),
                    shard.dimension == (shards.last?.dimension ?? shard.dimension)
                else { throw .incomplete(tensor: name) }
                parts.append([rank])
                shards.append(shard)
            }
        }
        guard let last = shards.last, last.range.upperBound == first.held.shape[last.dimension] else {
            throw .incomplete(tensor: name)
        }
        return (first.held, entries.map(\.rank), parts, shards)
    }

    /// Fails unless the pieces of each state have as many elements together as the parameter.
    private func checkStates() throws(TrainingCheckpointError) {
        var counts: [String: Int] = [:]
        for state in states { counts[state.key.name, default: 0] += state.key.piece.elements.count }
        for state in states where counts[state.key.name] != state.key.piece.shape.reduce(1, *) {
            throw .incomplete(tensor: state.key.name)
        }
    }
}

extension HeldTensors.Weights {
    fileprivate var start: Int { shard?.range.lowerBound ?? 0 }
}
