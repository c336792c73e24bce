/// How often neighbours occur, by pair of ids: an open-addressing table that grows.
struct PairCounts {
    private var keys = [UInt64](repeating: .max, count: 1 << 14)
    private var indices = [Int32](repeating: 0, count: 1 << 14)
    /// The pair of each index, the left id in the upper half.
    private(set) var pairs: [UInt64] = []
    /// Occurrences of each index's pair.
    var counts: [Int] = []

    /// The index of a pair, which is new at the end of ``counts`` if it has not been seen.
    mutating func index(_ left: UInt32, _ right: UInt32) -> Int {
        let key = UInt64(left) << 32 | UInt64(right)
        var slot = PairCounts.hash(key) & (keys.count - 1)
        while keys[slot] != .max {
            if keys[slot] == key { return Int(indices[slot]) }
            slot = (slot + 1) & (keys.count - 1)
        }
        keys[slot] = key
        indices[slot] = Int32(pairs.count)
        pairs.append(key)
        counts.append(0)
        if 2 * pairs.count > keys.count { grow() }
        return pairs.count - 1
    }

    @inline(__always)
    private static func hash(_ key: UInt64) -> Int {
        Int(truncatingIfNeeded: ByteHash.mix(0, key &+ key >> 32 &* 0xD6E8_FEB8_6659_FD93) >> 8)
    }

    private mutating func grow() {
        keys = [UInt64](repeating: .max, count: 2 * keys.count)
        indices = [Int32](repeating: 0, count: keys.count)
        for (index, key) in pairs.enumerated() {
            var slot = PairCounts.hash(key) & (keys.count - 1)
            while keys[slot] != .max { slot = (slot + 1) & (keys.count - 1) }
            keys[slot] = key
            indices[slot] = Int32(index)
        }
    }
}

/// Pairs that may be merged next, the most frequent first and of equal ones the lowest.
struct PairHeap {
    /// A pair as it was counted when the entry was made.
    struct Entry {
        var count: Int
        var pair: UInt64
        /// Where the pair is counted.
        var index: Int32
        /// Words in which it occurs since then, each once.
        var words: [Int32]

        fileprivate func precedes(_ other: Entry) -> Bool {
            count != other.count ? count > other.count : pair < other.pair
        }
    }

    private var entries: [Entry] = []

    /// Adds an entry.
    mutating func push(_ entry: Entry) {
        entries.append(entry)
        var child = entries.count - 1
        while child > 0 {
            let parent = (child - 1) / 2
            guard entry.precedes(entries[parent]) else { break }
            entries.swapAt(child, parent)
            child = parent
        }
    }

    /// Takes out the first entry.
    mutating func pop() -> Entry? {
        guard entries.count > 1 else { return entries.popLast() }
        entries.swapAt(0, entries.count - 1)
        let top = entries.removeLast()
        var parent = 0
        while true {
            var child = 2 * parent + 1
            if child >= entries.count { break }
            if child + 1 < entries.count, entries[child + 1].precedes(entries[child]) { child += 1 }
            guard entries[child].precedes(entries[parent]) else { break }
            entries.swapAt(child, parent)
            parent = child
        }
        return top
    }
}
