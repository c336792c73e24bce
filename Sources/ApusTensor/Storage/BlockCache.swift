/// The freed blocks of an allocator, by size class, and which of them to give back to their source.
struct BlockCache: ~Copyable {
    /// Bytes of all blocks.
    private(set) var byteCount = 0
    /// By ``place(of:)``: every allocation comes here, and a hash would be half of what it costs.
    private var classes = Array(repeating: Blocks(), count: BlockCache.classCount)
    /// Bytes asked for so far: the clock by which blocks age.
    private var clock = 0
    /// Bytes that may be held beyond the usual because they proved to be asked for again.
    private var missed = 0

    private struct Blocks {
        var size = 0
        var addresses: [UInt] = []
        /// The clock at the last request. A return counts for nothing: what a cache outgrew returns the latest of all.
        var lastUse = 0
        /// When a block was last given back to the system.
        var release: Int?
    }

    /// Bytes that may always stay cached; below, giving back costs more than it saves.
    private static let alwaysKept = 16 << 20
    /// A block asked for again before this many times the live bytes were handed out belongs to a repeating pattern, a
    /// training step.
    private static let repeatDistance = 8

    /// The block size that serves a request: the next multiple of an eighth of its power of two, at least 256 bytes.
    static func sizeClass(of byteCount: Int) -> Int {
        guard byteCount > 256 else { return 256 }
        let step = BlockCache.step(below: byteCount)
        return (byteCount + step - 1) / step * step
    }

    /// Bytes between the classes of the power of two that is below `byteCount`.
    private static func step(below byteCount: Int) -> Int {
        max((1 << (Int.bitWidth - 1 - (byteCount - 1).leadingZeroBitCount)) / 8, 64)
    }

    /// Where the blocks of a class are: eight places for each power of two.
    private static func place(of size: Int) -> Int {
        let bits = Int.bitWidth - 1 - (size - 1).leadingZeroBitCount
        return 8 * bits + (size - (1 << bits)) / step(below: size)
    }

    private static let classCount = 8 * Int.bitWidth

    /// A block of exactly the class `size`, if there is one.
    mutating func take(_ size: Int) -> UInt? {
        clock += size
        let place = BlockCache.place(of: size)
        classes[place].lastUse = clock
        guard let address = classes[place].addresses.popLast() else { return nil }
        byteCount -= size
        return address
    }

    /// Keeps a block for reuse.
    mutating func put(_ address: UInt, size: Int) {
        let place = BlockCache.place(of: size)
        classes[place].size = size
        classes[place].addresses.append(address)
        byteCount += size
    }

    /// Moves all blocks to another cache.
    mutating func move(to other: inout BlockCache) {
        for place in classes.indices {
            for address in classes[place].addresses { other.put(address, size: classes[place].size) }
            classes[place].addresses = []
        }
        byteCount = 0
    }

    /// Gives back what no request came for, before a block of the class `size` is taken from the system.
    ///
    /// Live and cached bytes together may pass `highestLive`, the live bytes at their highest, by a quarter. A class that
    /// is soon missed after it was given back raises that by its size, so that a repeated step ends up with all that it
    /// needs.
    ///
    /// - Parameter live: Bytes live with the new block.
    mutating func trim(forNew size: Int, live: Int, highestLive: Int, to source: any MemorySource) {
        if let release = classes[BlockCache.place(of: size)].release,
            clock - release <= BlockCache.repeatDistance * highestLive
        {
            missed += size
        }
        release(downTo: highestLive / 4 * 5 + BlockCache.alwaysKept + missed - live, to: source)
    }

    /// Gives blocks back, the least recently used class first, until at most `limit` bytes are cached.
    mutating func release(downTo limit: Int, to source: any MemorySource) {
        while byteCount > max(limit, 0) {
            let held = classes.indices.filter { !classes[$0].addresses.isEmpty }
            guard let oldest = held.min(by: { classes[$0].lastUse < classes[$1].lastUse }) else { return }
            let size = classes[oldest].size
            while byteCount > max(limit, 0), let address = classes[oldest].addresses.popLast() {
                source.free(address, size: size)
                byteCount -= size
            }
            classes[oldest].release = clock
        }
    }
}
