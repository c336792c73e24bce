import ApusKernels
import ApusTensor
import ApusTestSupport
import Testing

// Shape letters: T tokens, E experts, K choices per token, C capacity, G routing groups.

@Suite struct `Capacity` {
    let backend = CPUBackend(threadCount: 2)

    private func random(_ tokens: Int, _ experts: Int, _ choices: Int, seed: UInt64 = 3) -> [Int] {
        var generator = SeededGenerator(seed: seed)
        return (0..<tokens).flatMap { _ in (0..<experts).shuffled(using: &generator).prefix(choices) }
    }

    private func limit(
        _ ids: [Int], _ choices: Int, experts: Int, groups: [Range<Int>], _ capacities: [Int],
        _ priority: CapacityPriority
    ) throws -> [Int] {
        let source = try backend.allocator.integers(ids, Shape(ids.count / choices, choices))
        let kept = try backend.allocator.integers(Array(repeating: -7, count: ids.count), source.shape)
        try backend.limitToCapacity(
            source, experts: experts, groups: groups, capacities: capacities, priority: priority, into: kept)
        return kept.array(of: Int32.self).map(Int.init)
    }

    /// The slots of each expert in a group, by choice and then by token.
    private func members(_ ids: [Int], _ choices: Int, _ group: Range<Int>, _ expert: Int) -> [Int] {
        (0..<choices).flatMap { choice in group.map { $0 * choices + choice } }.filter { ids[$0] == expert }
    }

    @Test func `by position keeps first choices, then tokens in order`() throws {
        // Expert 0 is the second choice of token 0 and the first of tokens 1 to 3.
        let ids = [1, 0, 0, 1, 0, 2, 0, 2]
        #expect(try limit(ids, 2, experts: 3, groups: [0..<4], [2], .position) == [1, -1, 0, 1, 0, 2, -1, 2])
        #expect(try limit(ids, 2, experts: 3, groups: [0..<4], [4], .position) == ids)
        #expect(try limit(ids, 2, experts: 3, groups: [0..<4], [0], .position).allSatisfy { $0 == -1 })
    }

    @Test func `by score keeps the highest, and the earlier of equals`() throws {
        let ids = [0, 0, 0, 1, 0]
        let scores = try backend.allocator.tensor([0.1, 0, 0.9, 0, 0.5, 0, 0, 1, 0.5, 0] as [Float], Shape(5, 2))
        #expect(try limit(ids, 1, experts: 2, groups: [0..<5], [2], .score(scores)) == [-1, 0, 0, 1, -1])
        let equal = try backend.allocator.tensor(Array(repeating: Float(0.5), count: 10), Shape(5, 2))
        #expect(try limit(ids, 1, experts: 2, groups: [0..<5], [3], .score(equal)) == [0, 0, 0, 1, -1])
    }

    @Test(arguments: [(40, 4, 2), (100, 8, 3), (64, 2, 1)])
    func `keeps as many as fit in every group, and drops nobody else`(tokens: Int, experts: Int, choices: Int) throws {
        let ids = random(tokens, experts, choices)
        let groups = [0..<tokens / 4, tokens / 4..<tokens / 2, tokens / 2..<tokens]
        let capacities = [3, 1, 9]
        let scores = try backend.random(tokens, experts, seed: 4)
        let ranks = scores.floats()
        let stream = RandomStream(seed: 1, purpose: .tokenSelection, layer: 2, step: 3)
        let slots = try backend.random(tokens, choices, seed: 5)
        let values = slots.floats()
        for priority in [
            CapacityPriority.position, .score(scores), .random(stream, firstGlobalSlot: 17), .slots(slots),
        ] {
            let kept = try limit(ids, choices, experts: experts, groups: groups, capacities, priority)
            for slot in ids.indices { #expect(kept[slot] == ids[slot] || kept[slot] == -1) }
            for (group, capacity) in zip(groups, capacities) {
                for expert in 0..<experts {
                    let all = members(ids, choices, group, expert)
                    let staying = all.filter { kept[$0] >= 0 }
                    #expect(staying.count == min(capacity, all.count))
                    switch priority {
                    case .position: #expect(staying == Array(all.prefix(capacity)))
                    case .score:
                        let value = { ranks[$0 / choices * experts + expert] }
                        let leaving = all.filter { kept[$0] < 0 }
                        #expect((staying.map(value).min() ?? 1) >= (leaving.map(value).max() ?? -1))
                    case .slots:
                        let leaving = all.filter { kept[$0] < 0 }
                        #expect(
                            (staying.map { values[$0] }.min() ?? 9) >= (leaving.map { values[$0] }.max() ?? -9))
                    case .random: break
                    }
                }
            }
        }
    }

    @Test func `by random draw does not depend on how the batch is cut`() throws {
        let (tokens, choices) = (60, 2)
        let ids = random(tokens, 4, choices)
        let stream = RandomStream(seed: 5, purpose: .tokenSelection)
        let groups = [0..<20, 20..<40, 40..<60]
        let whole = try limit(ids, choices, experts: 4, groups: groups, [4, 4, 4], .random(stream, firstGlobalSlot: 0))
        let part = try limit(
            Array(ids[20 * choices..<60 * choices]), choices, experts: 4, groups: [0..<20, 20..<40], [4, 4],
            .random(stream, firstGlobalSlot: UInt64(20 * choices)))
        #expect(part == Array(whole[20 * choices..<60 * choices]))
        let other = try limit(
            ids, choices, experts: 4, groups: groups, [4, 4, 4],
            .random(RandomStream(seed: 5, purpose: .tokenSelection, step: 1), firstGlobalSlot: 0))
        #expect(other != whole)
    }

    @Test func `by random draw favours nobody`() throws {
        var survivors = Array(repeating: 0, count: 16)
        for step in 0..<500 {
            let stream = RandomStream(seed: 9, purpose: .tokenSelection, step: step)
            let kept = try limit(
                Array(repeating: 0, count: 16), 1, experts: 1, groups: [0..<16], [4],
                .random(stream, firstGlobalSlot: 0))
            for token in kept.indices where kept[token] >= 0 { survivors[token] += 1 }
        }
        // Mean 125, five standard deviations of about 9.7.
        #expect(survivors.allSatisfy { abs($0 - 125) < 49 }, "\(survivors)")
    }

    @Test(arguments: [(40, 4, 2), (100, 8, 3), (9, 3, 1)])
    func `pads every expert to the capacities of all groups`(tokens: Int, experts: Int, choices: Int) throws {
        let groups = [0..<tokens / 3, tokens / 3..<tokens]
        let capacities = [2, 5]
        let kept = try limit(
            random(tokens, experts, choices), choices, experts: experts, groups: groups, capacities, .position)
        let permutation = try backend.padToCapacity(
            try backend.allocator.integers(kept, Shape(tokens, choices)), experts: experts, groups: groups,
            capacities: capacities)
        let total = capacities.reduce(0, +)
        let slotToRow = permutation.slotToRow.array(of: Int32.self).map(Int.init)
        let rowToSlot = permutation.rowToSlot.array(of: Int32.self).map(Int.init)
        let rowToToken = permutation.rowToToken.array(of: Int32.self).map(Int.init)
        #expect(permutation.offsets.array(of: Int32.self).map(Int.init) == (0...experts).map { $0 * total })
        #expect(
            permutation.counts.array(of: Int32.self).map(Int.init) == (0..<experts).map { e in kept.count { $0 == e } })
        #expect(rowToSlot.count == experts * total)
        for (slot, row) in slotToRow.enumerated() { #expect(kept[slot] < 0 ? row == -1 : rowToSlot[row] == slot) }
        for (row, slot) in rowToSlot.enumerated() {
            #expect(rowToToken[row] == (slot < 0 ? -1 : slot / choices))
            if slot >= 0 { #expect(slotToRow[slot] == row) }
        }
        var start = 0
        for (group, capacity) in zip(groups, capacities) {
            for expert in 0..<experts {
                let rows = members(kept, choices, group, expert).map { slotToRow[$0] }
                let first = expert * total + start
                #expect(rows == Array(first..<first + rows.count))
            }
            start += capacity
        }
    }
}
