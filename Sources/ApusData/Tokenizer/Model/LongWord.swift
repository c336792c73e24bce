/// Merging of a word of many symbols, in time that grows little faster than its length.
///
/// Symbols are linked, and a heap holds the merges that may come next. An entry is stale when the symbol at its place
/// has changed since; the merge that stands there now tells.
struct LongWord: ~Copyable {
    private var capacity = 0
    private var next: UnsafeMutablePointer<Int32>
    private var previous: UnsafeMutablePointer<Int32>
    /// Rank in the upper half and place in the lower: the least is the lowest rank, then the leftmost.
    private var heap: UnsafeMutablePointer<UInt64>
    private var heapCount = 0

    init() {
        next = .allocate(capacity: 1)
        previous = .allocate(capacity: 1)
        heap = .allocate(capacity: 1)
    }

    deinit {
        next.deallocate()
        previous.deallocate()
        heap.deallocate()
    }

    private mutating func reserve(_ count: Int) {
        guard count > capacity else { return }
        next.deallocate()
        previous.deallocate()
        heap.deallocate()
        capacity = max(count, 2 * capacity)
        next = .allocate(capacity: capacity)
        previous = .allocate(capacity: capacity)
        // Every pair once, and two for each merge.
        heap = .allocate(capacity: 3 * capacity)
    }

    /// Merges symbols in place; as ``BPEModel`` does for short words.
    ///
    /// - Returns: how many are left.
    mutating func merge(
        _ symbols: UnsafeMutablePointer<UInt32>, _ merges: UnsafeMutablePointer<UInt64>, _ count: Int,
        _ pairs: PairTable.View
    ) -> Int {
        reserve(count)
        heapCount = 0
        for place in 0..<count {
            next[place] = Int32(truncatingIfNeeded: place &+ 1)
            previous[place] = Int32(truncatingIfNeeded: place &- 1)
            merges[place] = place + 1 < count ? pairs.merge(symbols[place], symbols[place + 1]) : PairTable.none
            if merges[place] != PairTable.none {
                heap[heapCount] = LongWord.entry(merges[place], place)
                heapCount &+= 1
            }
        }
        for place in stride(from: heapCount / 2 - 1, through: 0, by: -1) { siftDown(place) }
        while let top = pop() {
            let place = Int(top & 0xFFFF_FFFF)
            let merge = merges[place]
            guard merge != PairTable.none, merge >> 32 == top >> 32 else { continue }
            symbols[place] = UInt32(truncatingIfNeeded: merge)
            let gone = Int(next[place])
            let after = Int(next[gone])
            merges[gone] = PairTable.none
            next[place] = Int32(truncatingIfNeeded: after)
            merges[place] = PairTable.none
            if after < count {
                previous[after] = Int32(truncatingIfNeeded: place)
                renew(place, pairs.merge(symbols[place], symbols[after]), merges)
            }
            let before = Int(previous[place])
            if before >= 0 { renew(before, pairs.merge(symbols[before], symbols[place]), merges) }
        }
        var kept = 0
        var place = 0
        while place < count {
            symbols[kept] = symbols[place]
            kept &+= 1
            place = Int(next[place])
        }
        return kept
    }

    @inline(__always)
    private static func entry(_ merge: UInt64, _ place: Int) -> UInt64 { merge & ~0xFFFF_FFFF | UInt64(place) }

    @inline(__always)
    private mutating func renew(_ place: Int, _ merge: UInt64, _ merges: UnsafeMutablePointer<UInt64>) {
        merges[place] = merge
        if merge != PairTable.none { push(LongWord.entry(merge, place)) }
    }

    private mutating func push(_ entry: UInt64) {
        var child = heapCount
        heapCount &+= 1
        while child > 0 {
            let parent = (child &- 1) / 2
            if heap[parent] <= entry { break }
            heap[child] = heap[parent]
            child = parent
        }
        heap[child] = entry
    }

    private mutating func pop() -> UInt64? {
        guard heapCount > 0 else { return nil }
        let top = heap[0]
        heapCount &-= 1
        if heapCount > 0 {
            heap[0] = heap[heapCount]
            siftDown(0)
        }
        return top
    }

    @inline(__always)
    private func siftDown(_ start: Int) {
        let entry = heap[start]
        var parent = start
        while true {
            var child = 2 &* parent &+ 1
            if child >= heapCount { break }
            if child &+ 1 < heapCount, heap[child &+ 1] < heap[child] { child &+= 1 }
            if entry <= heap[child] { break }
            heap[parent] = heap[child]
            parent = child
        }
        heap[parent] = entry
    }
}
