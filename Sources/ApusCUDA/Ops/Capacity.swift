public import ApusKernels
public import ApusTensor

// Shape letters: T tokens, E experts, K choices per token, C capacity, G routing groups.

extension CUDABackend: CapacityOp {
    public func limitToCapacity(
        _ ids: Tensor, experts: Int, groups: [Range<Int>], capacities: [Int], priority: CapacityPriority,
        into kept: Tensor
    ) throws {
        try launch(
            "limit_to_capacity", LaunchShape(grid: (experts, groups.count, 1), block: (256, 1, 1)), kept, ids,
            try slotPriorities(priority, ids), try ranges(groups), try constant(capacities), ids.shape[1])
    }

    public func padToCapacity(
        _ kept: Tensor, experts: Int, groups: [Range<Int>], capacities: [Int]
    ) throws -> RoutingPermutation {
        let total = capacities.reduce(0, +)
        let rows = experts * total
        let permutation = RoutingPermutation(
            slotToRow: try empty(Shape(kept.count), .i32), rowToSlot: try empty(Shape(rows), .i32),
            rowToToken: try empty(Shape(rows), .i32), counts: try zeros(Shape(experts), .i32),
            offsets: try empty(Shape(experts + 1), .i32))
        let starts = capacities.reduce(into: [0]) { $0.append($0[$0.count - 1] + $1) }.dropLast()
        try launch(
            "pad_to_capacity", LaunchShape(grid: (experts, groups.count, 1), block: (256, 1, 1)),
            permutation.slotToRow, permutation.rowToSlot, permutation.rowToToken, permutation.counts,
            permutation.offsets, kept, try ranges(groups), try constant(capacities), try constant(Array(starts)),
            experts, kept.shape[1], total)
        return permutation
    }

    public func dropLightChoices(_ ids: Tensor, weights: Tensor, below threshold: Float, into kept: Tensor) throws {
        precondition(ids.shape == weights.shape && ids.shape == kept.shape)
        try launch("drop_light_choices", .flat(ids.count), kept, ids, weights, threshold, ids.count, ids.shape[1])
    }

    /// (T, K) `f32`, higher keeps its place; `nil` when the order of places decides.
    private func slotPriorities(_ priority: CapacityPriority, _ ids: Tensor) throws -> Tensor? {
        switch priority {
        case .position: return nil
        case .random(let stream, let first):
            let draws = try empty(ids.shape, .f32, .workspace)
            try fillRandom(draws, .uniform(low: 0, high: 1), stream: stream, first: first)
            return draws
        case .score(let scores):
            let values = try empty(ids.shape, .f32, .workspace)
            let rule = GateRule(isSoftmaxOfChosen: false, renormalizes: false, scale: 1)
            try gateWeights(scores, ids: ids, rule: rule, into: values)
            return values
        case .slots(let values): return values
        }
    }
}
