/// The freed blocks of an allocator, by size class, and which of them to give back to their source.
struct BlockCache: ~Copyable {
    /// Bytes of all blocks.
    private(set) var byteCount = 0
    private var classes: [Int: Blocks] = [:]
    /// Bytes asked for so far: the clock by which blocks age.
    private var clock = 0
    /// When a block of a class was last given back to the system.
    private var releases: [Int: Int] = [:]
    /// Bytes that may be held beyond the usual because they proved to be asked for again.
    private var missed = 0

    private struct Blocks {
        var addresses: [UInt] = []
        /// The clock at the last request. A return counts for nothing: what a cache outgrew returns the latest of all.
        var lastUse = 0
    }

    /// Bytes that may always stay cached; below, giving back costs more than it saves.
    private static let alwaysKept = 16 << 20
    /// A block asked for again before this many times the live bytes were handed out belongs to a repeating pattern, a
    /// training step.
    private static let repeatDistance = 8

    /// A block of exactly the class `size`, if there is one.
    mutating func take(_ size: Int) -> UInt? {
        clock += size
        classes[size, default: Blocks()].lastUse = clock
        guard let address = classes[size]?.addresses.popLast() else { return nil }
        byteCount -= size
        return address
    }

    /// Keeps a block for reuse.
    mutating func put(_ address: UInt, size: Int) {
        classes[size, default: Blocks()].addresses.append(address)
        byteCount += size
    }

    /// Gives back what no request came for, before a block of the class `size` is taken from the system.
    ///
    /// Live and cached bytes together may pass `highestLive`, the live bytes at their highest, by a quarter. A class that
    /// is soon missed after it was given back raises that by its size, so that a repeated step ends up with all that it
    /// needs.
    ///
    /// - Parameter live: Bytes live with the new block.
    mutating func trim(forNew size: Int, live: Int, highestLive: Int, to source: any MemorySource) {
        if let release = releases[size], clock - release <= BlockCache.repeatDistance * highestLive { missed += size }
        release(downTo: highestLive / 4 * 5 + BlockCache.alwaysKept + missed - live, to: source)
    }

    /// Gives blocks back, the least recently used class first, until at most `limit` bytes are cached.
    mutating func release(downTo limit: Int, to source: any MemorySource) {
        while byteCount > max(limit, 0) {
            let oldest = classes.filter { !$0.value.addresses.isEmpty }.min { $0.value.lastUse < $1.value.lastUse }
            guard let size = oldest?.key else { return }
            while byteCount > max(limit, 0), let address = classes[size]?.addresses.popLast() {
                source.free(address, size: size)
                byteCount -= size
            }
            releases[size] = clock
        }
    }
}
