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

    /// Moves the blocks that nobody uses any more to `cache`; with `waiting` all of them, after their uses.
    mutating func move(to cache: inout BlockCache, waiting: Bool = false) {
        guard !blocks.isEmpty else { return }
        blocks.removeAll { block in
            // How the work ended does not matter here: it is over.
            if waiting { for use in block.uses { try? use.wait() } }
            guard block.uses.allSatisfy(\.isComplete) else { return false }
            cache.put(block.address, size: block.size)
            byteCount -= block.size
            return true
        }
    }
}
