/// Blocks whose owners have let go while other streams may still use them.
struct ParkedBlocks: ~Copyable {
    private struct Block {
        let address: UInt
        let size: Int
        let uses: [Event]
    }

    /// Bytes of all blocks.
    private(set) var byteCount = 0
    private var blocks: [Block] = []

    /// Keeps a block until all of `uses` are over.
    mutating func put(_ address: UInt, size: Int, uses: [Event]) {
        blocks.append(Block(address: address, size: size, uses: uses))
        byteCount += size
    }

    /// Blocks in use after which the younger ones are not asked for: work ends about in the order in which it began, every
    /// allocation comes here, and each question goes to the driver.
    private static let mostInUse = 8

    /// Moves the blocks that nobody uses any more to `cache`; with `waiting` all of them, after their uses.
    mutating func move(to cache: inout BlockCache, waiting: Bool = false) {
        guard !blocks.isEmpty else { return }
        var inUse = 0
        blocks.removeAll { block in
            guard inUse < ParkedBlocks.mostInUse else { return false }
            // How the work ended does not matter here: it is over.
            if waiting { for use in block.uses { try? use.wait() } }
            guard block.uses.allSatisfy(\.isBehind) else {
                inUse += 1
                return false
            }
            cache.put(block.address, size: block.size)
            byteCount -= block.size
            return true
        }
    }
}
