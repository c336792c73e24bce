/// One part of a prepared corpus as a run of tokens: its shards, one after the other.
public struct ShardPart: TokenSource {
    private let shards: [ShardFile]
    /// Where each shard's tokens begin, and the end of the last.
    private let offsets: [Int]
    /// Where each shard's documents begin, and the end of the last.
    private let documentOffsets: [Int]

    init(_ shards: [ShardFile]) {
        self.shards = shards
        offsets = shards.reduce(into: [0]) { $0.append(($0.last ?? 0) + $1.header.tokens) }
        documentOffsets = shards.reduce(into: [0]) { $0.append(($0.last ?? 0) + $1.header.documents) }
    }

    /// Tokens.
    public var count: Int { offsets[shards.count] }
    /// Documents.
    public var documentCount: Int { documentOffsets[shards.count] }

    /// Copies tokens.
    ///
    /// - Throws: ``DataError`` when a shard is no longer what it was.
    public func read(_ range: Range<Int>, into target: UnsafeMutableBufferPointer<Int32>) throws {
        var done = 0
        try forEachShard(in: range) { shard, _, local in
            try shard.read(local, into: UnsafeMutableBufferPointer(rebasing: target[done...]))
            done += local.count
        }
    }

    /// Starts of documents; no document lies in two shards.
    ///
    /// - Throws: ``DataError`` when a shard is no longer what it was.
    public func documentStarts(in range: Range<Int>) throws -> [Int] {
        var starts: [Int] = []
        try forEachShard(in: range) { shard, base, local in
            let first = try shard.document(at: local.lowerBound)
            let count = shard.header.documents
            search: for begin in stride(from: first, to: count, by: ShardPart.endsAtOnce) {
                for end in try shard.ends(ofDocuments: begin..<min(begin + ShardPart.endsAtOnce, count)) {
                    if end > local.upperBound { break search }
                    guard base + end > starts.last ?? range.lowerBound else {
                        throw DataError.malformed(path: shard.path, reason: "its documents do not follow each other")
                    }
                    starts.append(base + end)
                }
            }
            try shard.checkUnchanged()
        }
        return starts
    }

    /// Ends of documents that are read at once: a few more than most sequences have.
    private static let endsAtOnce = 64

    /// The tokens of a document, its end included.
    ///
    /// - Throws: ``DataError`` when a shard is no longer what it was.
    public func document(_ index: Int) throws -> Range<Int> {
        precondition(index >= 0 && index < documentCount)
        let number = part(holding: index, of: documentOffsets)
        let (shard, local) = (shards[number], index - documentOffsets[number])
        let begin = local == 0 ? 0 : try shard.end(ofDocument: local - 1)
        let end = try shard.end(ofDocument: local)
        try shard.checkUnchanged()
        guard begin < end else {
            throw DataError.malformed(path: shard.path, reason: "its documents do not follow each other")
        }
        return offsets[number] + begin..<offsets[number] + end
    }

    /// The shard of which `place` is one, where shards begin at `offsets`.
    private func part(holding place: Int, of offsets: [Int]) -> Int {
        var (low, high) = (0, shards.count)
        while low + 1 < high {
            let middle = (low + high) / 2
            if offsets[middle] <= place { low = middle } else { high = middle }
        }
        return low
    }

    /// Calls `body` with each shard that `range` touches, the place of its first token, and its own tokens in `range`.
    private func forEachShard(
        in range: Range<Int>, _ body: (_ shard: ShardFile, _ base: Int, _ local: Range<Int>) throws -> Void
    ) throws {
        precondition(range.lowerBound >= 0 && range.upperBound <= count)
        var number = part(holding: range.lowerBound, of: offsets)
        var place = range.lowerBound
        while place < range.upperBound {
            let end = min(range.upperBound, offsets[number + 1])
            try body(shards[number], offsets[number], place - offsets[number]..<end - offsets[number])
            place = end
            number += 1
        }
    }
}
