/// Merging of a word of few symbols: the lowest rank of all neighbours is found anew for each merge, eight at a time.
final class ScannedMerges {
    /// No rank, greater than every one.
    private static let none = Int32.max
    private static let width = 8

    private let ranks: UnsafeMutablePointer<Int32>
    private let results: UnsafeMutablePointer<UInt32>

    /// - Parameter capacity: most symbols of a word.
    init(capacity: Int) {
        ranks = .allocate(capacity: capacity + 2 * ScannedMerges.width)
        results = .allocate(capacity: capacity + 1)
    }

    deinit {
        ranks.deallocate()
        results.deallocate()
    }

    /// Merges symbols in place, the lowest rank first and of equal ones the leftmost.
    ///
    /// - Returns: how many are left.
    func merge(_ symbols: UnsafeMutablePointer<UInt32>, _ count: Int, _ pairs: PairTable.View) -> Int {
        guard count > 1 else { return count }
        var last = count &- 1
        for place in 0..<last { look(place, symbols, pairs) }
        // What is read beyond the last neighbours, also after symbols have moved down.
        for place in last..<last &+ ScannedMerges.width { ranks[place] = ScannedMerges.none }
        while last > 0 {
            let lowest = lowestRank(last)
            if lowest == ScannedMerges.none { break }
            var at = 0
            while ranks[at] != lowest { at &+= 1 }
            symbols[at] = results[at]
            last &-= 1
            var place = at &+ 1
            while place <= last {
                symbols[place] = symbols[place &+ 1]
                ranks[place] = ranks[place &+ 1]
                results[place] = results[place &+ 1]
                place &+= 1
            }
            ranks[last] = ScannedMerges.none
            if at > 0 { look(at &- 1, symbols, pairs) }
            if at < last { look(at, symbols, pairs) }
        }
        return last &+ 1
    }

    @inline(__always)
    private func look(_ place: Int, _ symbols: UnsafeMutablePointer<UInt32>, _ pairs: PairTable.View) {
        let merge = pairs.merge(symbols[place], symbols[place &+ 1])
        // No merge has all bits set, which gives no rank as well.
        ranks[place] = Int32(truncatingIfNeeded: merge >> 32) & ScannedMerges.none
        results[place] = UInt32(truncatingIfNeeded: merge)
    }

    @inline(__always)
    private func lowestRank(_ count: Int) -> Int32 {
        var lowest = UnsafeRawPointer(ranks).loadUnaligned(as: SIMD8<Int32>.self)
        var place = ScannedMerges.width
        while place < count {
            let next = UnsafeRawPointer(ranks + place).loadUnaligned(as: SIMD8<Int32>.self)
            lowest = pointwiseMin(lowest, next)
            place &+= ScannedMerges.width
        }
        return lowest.min()
    }
}
