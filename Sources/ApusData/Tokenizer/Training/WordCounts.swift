/// How often each word occurs: words in one run of bytes, and a hash table of their numbers.
struct WordCounts {
    private var bytes: [UInt8] = []
    private var starts: [Int] = [0]
    private(set) var counts: [Int] = []
    /// Numbers plus one; a power of two of them, at most half full.
    private var slots = [UInt32](repeating: 0, count: 1 << 12)

    /// How many different words there are.
    var count: Int { counts.count }

    /// The bytes of a word.
    subscript(word: Int) -> ArraySlice<UInt8> { bytes[starts[word]..<starts[word + 1]] }

    /// Counts a word `times` times more.
    mutating func add(_ word: UnsafePointer<UInt8>, _ length: Int, times: Int = 1) {
        let mask = slots.count - 1
        var slot = Int(truncatingIfNeeded: ByteHash.of(word, length)) & mask
        while slots[slot] != 0 {
            let known = Int(slots[slot]) - 1
            if equals(known, word, length) {
                counts[known] += times
                return
            }
            slot = (slot + 1) & mask
        }
        bytes.append(contentsOf: UnsafeBufferPointer(start: word, count: length))
        starts.append(bytes.count)
        counts.append(times)
        slots[slot] = UInt32(counts.count)
        if 2 * counts.count > slots.count { grow() }
    }

    /// Adds the counts of another text.
    mutating func add(_ other: WordCounts) {
        for word in 0..<other.count {
            other[word].withUnsafeBufferPointer { bytes in
                if let start = bytes.baseAddress { add(start, bytes.count, times: other.counts[word]) }
            }
        }
    }

    private func equals(_ known: Int, _ word: UnsafePointer<UInt8>, _ length: Int) -> Bool {
        let start = starts[known]
        guard starts[known + 1] - start == length else { return false }
        return bytes.withUnsafeBufferPointer { bytes in
            for place in 0..<length where bytes[start + place] != word[place] { return false }
            return true
        }
    }

    private mutating func grow() {
        slots = [UInt32](repeating: 0, count: 2 * slots.count)
        let mask = slots.count - 1
        for word in counts.indices {
            let hash = self[word].withUnsafeBufferPointer { bytes in
                bytes.baseAddress.map { ByteHash.of($0, bytes.count) } ?? 0
            }
            var slot = Int(truncatingIfNeeded: hash) & mask
            while slots[slot] != 0 { slot = (slot + 1) & mask }
            slots[slot] = UInt32(word) + 1
        }
    }
}
