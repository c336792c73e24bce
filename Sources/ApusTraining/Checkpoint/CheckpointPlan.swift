import ApusModels
import ApusNN
import ApusTensor

/// Who writes what of a checkpoint: each parameter whole, once, and each element of the optimizer's state once.
///
/// It follows from what all ranks hold, so that ranks which know that have the same plan. Of ranks that hold the same, the
/// one with the fewest bytes so far writes, the largest tensors given out first.
struct CheckpointPlan: Sendable {
    /// A parameter, as files have it.
    struct Weights: Sendable {
        let name: String
        let shape: [Int]
        let type: DType
        /// The rank that writes it.
        let writer: Int
        /// What it is put together from: all of it, or ranges of one dimension, ascending.
        let parts: [(rank: Int, shard: Shard?)]

        var spec: TensorSpec { TensorSpec(name: name, dtype: type, shape: shape) }
        /// Elements of the largest part.
        var largestPart: Int {
            parts.map { part in
                part.shard.map { shape.reduce(1, *) / max(shape[$0.dimension], 1) * $0.range.count }
                    ?? shape.reduce(1, *)
            }.max() ?? 0
        }
    }

    /// What tells the pieces of one rank apart.
    struct StateName: Hashable {
        /// `<kind>.<parameter>`.
        let name: String
        /// The piece's first element.
        let first: Int
    }

    /// A piece of one kind of state of a parameter.
    struct State: Sendable {
        /// `<kind>.<parameter>`.
        let name: String
        let piece: StatePieceIndex.Piece
        let type: DType
        /// The rank that writes it.
        let writer: Int

        var spec: TensorSpec { TensorSpec(name: name, dtype: type, shape: [piece.elements.count]) }
    }

    /// In the order of the model's inventory.
    let weights: [Weights]
    /// Rank by rank, in the order in which each has them.
    let states: [State]
    /// The files of weights, by writer.
    let weightFiles: SharedShards
    /// The files of state, by writer.
    let stateFiles: SharedShards

    /// The plan for ranks that hold `held`, by rank.
    ///
    /// - Parameters:
    ///   - order: Names in the order in which files have them; what is not among them comes behind.
    ///   - maximumShardSize: Bytes of tensor data per file.
    /// - Throws: ``TrainingCheckpointError/incomplete(tensor:)`` when the ranks do not hold the whole of something;
    ///   what ``SharedShards`` throws.
    init(_ held: [HeldTensors], order: [String], maximumShardSize: Int = 5_000_000_000) throws {
        var search = PlanSearch(ranks: held.count)
        for (rank, held) in held.enumerated() {
            for entry in held.weights { search.add(entry, rank: rank) }
            for state in held.states { search.add(state, of: held.weights[state.parameter], rank: rank) }
        }
        let (weights, states) = try search.assign(order: order)
        self.weights = weights
        self.states = states
        let ranks = held.indices
        weightFiles = try SharedShards(
            ranks.map { rank in weights.filter { $0.writer == rank }.map(\.spec) }, base: "model",
            maximumShardSize: maximumShardSize, path: "checkpoint")
        stateFiles = try SharedShards(
            ranks.map { rank in states.filter { $0.writer == rank }.map(\.spec) }, base: "optimizer",
            maximumShardSize: maximumShardSize, path: "checkpoint")
    }

    /// Describes every piece of state where there is more than one rank, or a piece that is not a whole.
    func pieceIndex(ranks: Int) -> StatePieceIndex? {
        guard ranks > 1 || states.contains(where: { $0.piece.elements.count != $0.piece.shape.reduce(1, *) }) else {
            return nil
        }
        var files: [String: [String: StatePieceIndex.Piece]] = [:]
        for rank in 0..<ranks {
            let pieces = Dictionary(
                states.filter { $0.writer == rank }.map { ($0.name, $0.piece) }
            ) { first, _ in first }
            for file in stateFiles.files(of: rank) {
                let own = file.tensors.compactMap { name in pieces[name].map { (name, $0) } }
                files[file.name] = Dictionary(own) { first, _ in first }
            }
        }
        return StatePieceIndex(files: files)
    }
}
