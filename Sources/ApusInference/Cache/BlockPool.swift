/// Which blocks are free and which sequence has which: the bookkeeping of a ``BlockCache``, without its memory.
struct BlockPool {
    /// Tokens in a block.
    let blockSize: Int
    /// Most blocks there may ever be; `nil` for no limit.
    let limit: Int?
    /// Blocks there are.
    private(set) var count = 0
    /// Free blocks, the next one to hand out last.
    private(set) var free: [Int32] = []

    init(blockSize: Int, limit: Int?) {
        self.blockSize = blockSize
        self.limit = limit
    }

    /// Blocks that `tokens` tokens take.
    func blocks(for tokens: Int) -> Int { (tokens + blockSize - 1) / blockSize }

    /// How many blocks there must be for `needed` more to be handed out: what there is, or half as many again, so that
    /// growth copies each key a bounded number of times; `nil` beyond the limit.
    func size(toHandOut needed: Int) -> Int? {
        guard needed > free.count else { return count }
        let least = count - free.count + needed
        if let limit, least > limit { return nil }
        return min(max(least, count + count / 2), limit ?? .max)
    }

    /// Adds blocks up to `size`.
    mutating func grow(to size: Int) {
        guard size > count else { return }
        // Handed out in ascending order, so that a sequence's blocks are mostly neighbours and are written in one piece.
        free = (Int32(count)..<Int32(size)).reversed() + free
        count = size
    }

    /// Takes a free block, which the caller has made sure of.
    mutating func take() -> Int32 { free.removeLast() }

    /// Gives blocks back, the first of them to be taken first.
    mutating func give(_ blocks: some BidirectionalCollection<Int32>) { free.append(contentsOf: blocks.reversed()) }
}
