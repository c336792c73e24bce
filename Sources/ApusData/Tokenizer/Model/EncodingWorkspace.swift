/// Workspace of one thread: the symbols of a word being merged, the cache of words, and the ids so far.
///
/// Buffers grow to the longest word seen and are kept.
// Sendable: used by one thread at a time, which takes it out of the tokenizer's list meanwhile.
final class EncodingWorkspace: @unchecked Sendable {
    /// A word of more symbols is merged through a heap; below, looking at all pairs is faster.
    static let longestScanned = 96

    // The run time's checks of exclusive access would take a sixth of encoding.
    @exclusivity(unchecked) var cache = WordCache()
    /// Ids of the text so far.
    @exclusivity(unchecked) private(set) var ids: UnsafeMutablePointer<Int32>
    @exclusivity(unchecked) private(set) var count = 0
    @exclusivity(unchecked) private var capacity = 1 << 12

    @exclusivity(unchecked) private(set) var symbols: UnsafeMutablePointer<UInt32>
    /// The merge of each symbol with the next, for words merged through the heap.
    @exclusivity(unchecked) private(set) var merges: UnsafeMutablePointer<UInt64>
    @exclusivity(unchecked) private var symbolCapacity = 256
    /// Merges of words that are scanned.
    let scanned = ScannedMerges(capacity: EncodingWorkspace.longestScanned)
    /// Links and heap for long words.
    @exclusivity(unchecked) var long = LongWord()

    init() {
        ids = .allocate(capacity: capacity)
        symbols = .allocate(capacity: symbolCapacity)
        merges = .allocate(capacity: symbolCapacity)
    }

    deinit {
        ids.deallocate()
        symbols.deallocate()
        merges.deallocate()
    }

    /// Forgets the ids of the last text.
    func removeIDs() { count = 0 }

    /// The ids as an array.
    func takeIDs() -> [Int32] { Array(UnsafeBufferPointer(start: ids, count: count)) }

    /// Makes room for `more` ids.
    @inline(__always)
    func reserveIDs(_ more: Int) { if count &+ more > capacity { growIDs(more) } }

    private func growIDs(_ more: Int) {
        let larger = max(2 * capacity, count + more)
        let memory = UnsafeMutablePointer<Int32>.allocate(capacity: larger)
        memory.update(from: ids, count: count)
        ids.deallocate()
        ids = memory
        capacity = larger
    }

    /// Appends ids.
    func append(_ more: [Int32]) {
        reserveIDs(more.count)
        for id in more { append(id) }
    }

    /// Appends one id, for which there must be room.
    @inline(__always)
    func append(_ id: Int32) {
        ids[count] = id
        count &+= 1
    }

    /// Appends the ids of a cached word, for which there must be room.
    @inline(__always)
    func append(_ from: UnsafePointer<Int32>, _ number: Int) {
        var place = 0
        while place < number {
            ids[count &+ place] = from[place]
            place &+= 1
        }
        count &+= number
    }

    /// Makes room for a word of `count` symbols.
    func reserveSymbols(_ count: Int) {
        guard count > symbolCapacity else { return }
        symbols.deallocate()
        merges.deallocate()
        symbolCapacity = max(count, 2 * symbolCapacity)
        symbols = .allocate(capacity: symbolCapacity)
        merges = .allocate(capacity: symbolCapacity)
    }
}
