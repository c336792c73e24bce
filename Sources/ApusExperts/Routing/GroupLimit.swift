import ApusKernels
import ApusTensor

// Shape letters: T tokens, E experts, G groups of experts, M groups that a token may use.

/// Experts in groups of equal size, of which each token may use a few: with a group on each node, a token travels to M
/// nodes at most (DeepSeek-V2 section 2.2.2, DeepSeek-V3 section 2.1.2).
public struct GroupLimit: Sendable, Equatable {
    /// What a group is worth to a token.
    public enum Score: String, Sendable, CaseIterable {
        /// Its best expert's score (DeepSeek-V2).
        case best
        /// The sum of its two best experts' scores, selection bias included (DeepSeek-V3).
        case bestTwo = "best-two"
        /// The sum of its experts' scores: with probabilities, that of the group (SMILE's first level).
        case sum
    }

    /// G; it divides the experts.
    public var groups: Int
    /// M.
    public var chosen: Int
    /// What a group is worth.
    public var score: Score

    /// `chosen` of `groups` groups for each token.
    public init(groups: Int, chosen: Int, score: Score = .best) {
        self.groups = groups
        self.chosen = chosen
        self.score = score
    }

    /// Why a layer of `experts` experts with `choices` for each token cannot have this limit, and what it could have; `nil`
    /// if it can.
    public func flaw(experts: Int, choices: Int) -> (reason: String, remedy: String)? {
        guard groups >= 1, experts % groups == 0 else {
            let fitting = (1...max(experts, 1)).filter { experts % $0 == 0 }.min { abs($0 - groups) < abs($1 - groups) }
            return ("\(groups) groups do not divide \(experts) experts", "the nearest that works is \(fitting ?? 1)")
        }
        guard (1...groups).contains(chosen) else {
            return ("a token cannot choose \(chosen) of \(groups) groups", "choose from 1 to \(groups)")
        }
        let size = experts / groups
        guard choices <= chosen * size else {
            return (
                "\(chosen) groups of \(size) experts have too few for \(choices) choices",
                "choose at least \((choices + size - 1) / size) groups"
            )
        }
        guard score != .bestTwo || size >= 2 else {
            return ("groups of one expert have no two best ones", "use score: best, or fewer groups")
        }
        return nil
    }

    /// Far below any score, and finite.
    static let excluded: Float = -1e30

    /// (T, E): `scores` with `bias` (E), those of experts outside a token's M groups below all others. What is inside keeps
    /// its bits.
    ///
    /// Groups of equal worth go by their number, as experts do.
    func applied(to scores: Tensor, bias: Tensor?, _ backend: any Backend) throws -> Tensor {
        let (tokens, experts) = (scores.shape[0], scores.shape[1])
        let size = experts / groups
        let limited = try backend.empty(scores.shape, .f32, .workspace)
        if let bias {
            try backend.addBias(scores, bias: bias, into: limited)
        } else {
            try backend.copy(scores, into: limited)
        }
        guard chosen < groups else { return limited }
        let worth = try self.worth(limited.reshaped(tokens * groups, size), backend).reshaped(tokens, groups)
        let order = try backend.empty(Shape(tokens, groups), .i32, .workspace)
        try backend.topK(worth, bias: nil, ids: order, values: nil)
        let others = try backend.empty(Shape(tokens, groups - chosen), .i32, .workspace)
        try backend.copy(order.columns(chosen..<groups), into: others)
        // Each expert is in one group, so that at most one row below is not 0 where it stands.
        let rows = (0..<groups * experts).map { $0 % experts / size == $0 / experts ? Self.excluded : 0 }
        try backend.combineRows(
            backend.tensor(rows, Shape(groups, experts), .workspace), slotToRow: others.reshaped(others.count),
            weights: nil, choices: groups - chosen, into: limited, adds: true)
        return limited
    }

    /// (T G, 1) from (T G, E / G).
    private func worth(_ scores: Tensor, _ backend: any Backend) throws -> Tensor {
        if score == .sum {
            let total = try backend.empty(Shape(scores.shape[0], 1), .f32, .workspace)
            let ones = try backend.empty(Shape(scores.shape[1], 1), .f32, .workspace)
            try backend.fill(ones, with: 1)
            try backend.matMul(scores.matrix, ones.matrix, into: total)
            return total
        }
        let count = score == .best ? 1 : 2
        let shape = Shape(scores.shape[0], count)
        let (ids, best) = (try backend.empty(shape, .i32, .workspace), try backend.empty(shape, .f32, .workspace))
        try backend.topK(scores, bias: nil, ids: ids, values: best)
        guard count == 2 else { return best }
        let single = Shape(scores.shape[0], 1)
        let (first, second) = (
            try backend.empty(single, .f32, .workspace), try backend.empty(single, .f32, .workspace)
        )
        try backend.copy(best.columns(0..<1), into: first)
        try backend.copy(best.columns(1..<2), into: second)
        try backend.add(first, second, into: first)
        return first
    }
}
