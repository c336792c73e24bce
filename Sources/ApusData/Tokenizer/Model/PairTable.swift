/// Which pairs of ids merge: rank and result of each, in an open-addressing table for loops.
final class PairTable: Sendable {
    /// Stands for a pair that does not merge; greater than every merge.
    static let none: UInt64 = .max

    fileprivate struct Slot: BitwiseCopyable {
        var key: UInt64
        var value: UInt64
    }

    private let slots: ReadOnlyBuffer<Slot>
    private let shift: UInt64

    /// - Parameter rules: merges by rank; of two with one pair, the later counts.
    init(_ rules: [MergeRule]) {
        var bits = 4
        while 1 << bits < 2 * rules.count { bits += 1 }
        shift = UInt64(64 - bits)
        let mask = 1 << bits - 1
        var slots = [Slot](repeating: Slot(key: .max, value: .max), count: 1 << bits)
        for (rank, rule) in rules.enumerated() {
            let key = UInt64(rule.left) << 32 | UInt64(rule.right)
            var place = Int(truncatingIfNeeded: PairTable.hash(key) >> shift)
            while slots[place].key != .max, slots[place].key != key { place = (place + 1) & mask }
            slots[place] = Slot(key: key, value: UInt64(rank) << 32 | UInt64(rule.result))
        }
        self.slots = ReadOnlyBuffer(slots)
    }

    @inline(__always)
    private static func hash(_ key: UInt64) -> UInt64 {
        let folded = key ^ key >> 32
        return folded &* 0x9E37_79B9_7F4A_7C15 ^ (key &* 0xD6E8_FEB8_6659_FD93)
    }

    /// A view for loops, valid as long as this object.
    var view: View { View(slots: slots.base, shift: shift, mask: slots.count - 1) }

    /// The table as an address.
    struct View {
        fileprivate let slots: UnsafePointer<Slot>
        fileprivate let shift: UInt64
        fileprivate let mask: Int

        /// Rank of a pair's merge in the upper half and its result in the lower, or ``PairTable/none``.
        @inline(__always)
        func merge(_ left: UInt32, _ right: UInt32) -> UInt64 {
            let key = UInt64(left) << 32 | UInt64(right)
            var place = Int(truncatingIfNeeded: PairTable.hash(key) >> shift)
            while true {
                let slot = slots[place]
                if slot.key == key { return slot.value }
                if slot.key == .max { return PairTable.none }
                place = (place + 1) & mask
            }
        }
    }
}

/// Two neighbours and what they become.
struct MergeRule: Sendable, Equatable {
    let left: UInt32
    let right: UInt32
    let result: UInt32
}
