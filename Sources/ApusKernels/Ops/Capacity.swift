public import ApusTensor

// Shape letters: T tokens, E experts, K choices per token, C capacity, G routing groups.

/// Who keeps its place when an expert gets more tokens of a routing group than its capacity.
public enum CapacityPriority: Sendable {
    /// First choices before second choices, and tokens in order (GShard, DeepSpeed).
    case position
    /// The highest score of the choice's expert first.
    case score(Tensor)
    /// A uniform draw for each slot, the highest first (random token selection, Z-code M3 section 3). The draw's index is
    /// the slot's place in the global batch.
    case random(RandomStream, firstGlobalSlot: UInt64)
    /// (T, K) `f32`: a value for each slot, the highest first.
    case slots(Tensor)
}

/// Holding each expert to its capacity.
public protocol CapacityOp {
    /// `kept` (T, K) `i32` is `ids` with -1 for every choice beyond its expert's capacity in its routing group.
    ///
    /// - Parameters:
    ///   - capacities: C of each group.
    ///   - priority: Who stays; ties go to the earlier choice, then the earlier token.
    func limitToCapacity(
        _ ids: Tensor, experts: Int, groups: [Range<Int>], capacities: [Int], priority: CapacityPriority,
        into kept: Tensor) throws
    /// Slots by expert, each expert's rows padded to the capacities of all groups: row `e * sum(C) + start of g + place`.
    ///
    /// Places follow the order of ``CapacityPriority/position``. `rowToSlot` and `rowToToken` are -1 in empty rows.
    func padToCapacity(_ kept: Tensor, experts: Int, groups: [Range<Int>], capacities: [Int]) throws
        -> RoutingPermutation
    /// `kept` (T, K) `i32` is `ids` with -1 for every choice but a token's first whose weight in `weights` (T, K) `f32` is
    /// below `threshold`.
    func dropLightChoices(_ ids: Tensor, weights: Tensor, below threshold: Float, into kept: Tensor) throws
}

extension CPUBackend: CapacityOp {
    public func limitToCapacity(
        _ ids: Tensor, experts: Int, groups: [Range<Int>], capacities: [Int], priority: CapacityPriority,
        into kept: Tensor
    ) throws {
        let choices = ids.shape[1]
        try ids.waitUntilReady()
        let (source, target) = (ids.pointer(to: Int32.self), kept.pointer(to: Int32.self))
        let draws = try slotPriorities(priority, ids)
        pool.run(parts: groups.count) { group, _ in
            let order = slots(of: groups[group], choices)
            var members = Array(repeating: [Int](), count: experts)
            for slot in order {
                target[slot] = source[slot]
                if source[slot] >= 0 { members[Int(source[slot])].append(slot) }
            }
            for slots in members where slots.count > capacities[group] {
                var ranked = Array(slots.enumerated())
                if let draws {
                    // A stable order: equal priorities stay in the order of places.
                    let value = draws.pointer(to: Float.self)
                    ranked.sort { left, right in
                        let (a, b) = (value[left.element], value[right.element])
                        return a != b ? a > b : left.offset < right.offset
                    }
                }
                for dropped in ranked.dropFirst(capacities[group]) { target[dropped.element] = -1 }
            }
        }
    }

    public func padToCapacity(
        _ kept: Tensor, experts: Int, groups: [Range<Int>], capacities: [Int]
    ) throws -> RoutingPermutation {
        let choices = kept.shape[1]
        let total = capacities.reduce(0, +)
        let rows = experts * total
        let permutation = RoutingPermutation(
            slotToRow: try empty(Shape(kept.count), .i32), rowToSlot: try empty(Shape(rows), .i32),
            rowToToken: try empty(Shape(rows), .i32), counts: try zeros(Shape(experts), .i32),
            offsets: try empty(Shape(experts + 1), .i32))
        try kept.waitUntilReady()
        fill(permutation.rowToSlot, with: -1)
        fill(permutation.rowToToken, with: -1)
        permutation.offsets.assign((0...experts).map { Int32($0 * total) })
        let (chosen, slotToRow) = (kept.pointer(to: Int32.self), permutation.slotToRow.pointer(to: Int32.self))
        let (rowToSlot, rowToToken) = (
            permutation.rowToSlot.pointer(to: Int32.self), permutation.rowToToken.pointer(to: Int32.self)
        )
        let counts = permutation.counts.pointer(to: Int32.self)
        var start = 0
        for (group, capacity) in zip(groups, capacities) {
            var places = Array(repeating: 0, count: experts)
            for slot in slots(of: group, choices) {
                let expert = Int(chosen[slot])
                guard expert >= 0 else {
                    slotToRow[slot] = -1
                    continue
                }
                let row = expert * total + start + places[expert]
                places[expert] += 1
                counts[expert] += 1
                slotToRow[slot] = Int32(row)
                rowToSlot[row] = Int32(slot)
                rowToToken[row] = Int32(slot / choices)
            }
            start += capacity
        }
        return permutation
    }

    public func dropLightChoices(_ ids: Tensor, weights: Tensor, below threshold: Float, into kept: Tensor) throws {
        precondition(ids.shape == weights.shape && ids.shape == kept.shape)
        let choices = ids.shape[1]
        try ids.waitUntilReady()
        try weights.waitUntilReady()
        let (source, values, target) = (
            ids.pointer(to: Int32.self), weights.pointer(to: Float.self), kept.pointer(to: Int32.self)
        )
        overElements(ids.count) { begin, count in
            for slot in begin..<begin + count {
                target[slot] = slot % choices == 0 || values[slot] >= threshold ? source[slot] : -1
            }
        }
    }

    /// Slots of a group by choice, then by token: the order in which places are given.
    private func slots(of group: Range<Int>, _ choices: Int) -> [Int] {
        (0..<choices).flatMap { choice in group.map { $0 * choices + choice } }
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
        case .slots(let values):
            try values.waitUntilReady()
            return values
        }
    }
}
