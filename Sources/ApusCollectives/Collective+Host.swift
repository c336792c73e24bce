import ApusTensor

// Numbers of the host that ranks agree on.

extension Collective {
    /// Each of `numbers` added over all ranks, which give equally many. Blocks.
    ///
    /// - Throws: ``CollectiveError``.
    public func sum(_ numbers: [Int]) throws -> [Int] { try reduced(numbers) { $0.reduce(0, +) } }

    /// The largest of each of `numbers` over all ranks, which give equally many. Blocks.
    ///
    /// - Throws: ``CollectiveError``.
    public func largest(_ numbers: [Int]) throws -> [Int] { try reduced(numbers) { $0.max() ?? 0 } }

    /// `numbers` of every rank, in the order of ranks, which give equally many. Blocks.
    ///
    /// - Throws: ``CollectiveError``.
    public func collected(_ numbers: [Int]) throws -> [[Int]] {
        guard size > 1 else { return [numbers] }
        // In halves: 64 bits are no element type.
        let halves = numbers.flatMap { [Int32(truncatingIfNeeded: $0), Int32(truncatingIfNeeded: $0 >> 32)] }
        let memory = CachingAllocator()
        let own = try memory.empty(Shape(halves.count), .i32, .workspace)
        let all = try memory.empty(Shape(halves.count * size), .i32, .workspace)
        for (index, half) in halves.enumerated() { own.pointer(to: Int32.self)[index] = half }
        try allGather(own, into: all)
        let words = all.array(of: Int32.self)
        return (0..<size).map { rank in
            numbers.indices.map { index in
                let place = (rank * numbers.count + index) * 2
                return Int(words[place + 1]) << 32 | Int(UInt32(bitPattern: words[place]))
            }
        }
    }

    /// Each of `values` added over all ranks, in their order, so that all come to the same bits. Blocks.
    ///
    /// - Throws: ``CollectiveError``.
    public func sum(_ values: [Double]) throws -> [Double] {
        let all = try collected(values.map { Int(bitPattern: UInt($0.bitPattern)) })
        return values.indices.map { index in
            all.reduce(0) { $0 + Double(bitPattern: UInt64(UInt(bitPattern: $1[index]))) }
        }
    }

    /// What the lowest rank says that says anything, on all ranks. Blocks.
    ///
    /// - Throws: ``CollectiveError``.
    public func first(_ text: String?) throws -> String? {
        guard size > 1 else { return text }
        let own = text.map { Array($0.utf8) }
        let counts = try collected([own?.count ?? -1]).map { $0[0] }
        guard let root = counts.firstIndex(where: { $0 >= 0 }) else { return nil }
        let words = try CachingAllocator().empty(Shape(counts[root]), .i32, .workspace)
        let bytes = words.pointer(to: Int32.self)
        if rank == root, let own { for (index, byte) in own.enumerated() { bytes[index] = Int32(byte) } }
        try broadcast(words, root: root)
        return String(decoding: (0..<counts[root]).map { UInt8(truncatingIfNeeded: bytes[$0]) }, as: UTF8.self)
    }

    /// Checks that all ranks were given the same `text`, of which `what` is the name.
    ///
    /// - Throws: ``RankDifference`` on every rank where one has another than rank 0; ``CollectiveError``.
    public func requireSame(_ text: String, what: String) throws {
        guard size > 1 else { return }
        let digest = text.utf8.reduce(UInt64(0xcbf2_9ce4_8422_2325)) { ($0 ^ UInt64($1)) &* 0x100_0000_01b3 }
        let digests = try collected([Int(bitPattern: UInt(digest))]).map { $0[0] }
        guard let other = digests.firstIndex(where: { $0 != digests[0] }) else { return }
        // The first line that differs says more than that something does.
        let own = try first(rank == 0 ? text : nil) ?? ""
        let theirs = try first(rank == other ? text : nil) ?? ""
        let lines = (own.split(separator: "\n"), theirs.split(separator: "\n"))
        let pair = zip(lines.0, lines.1).first { $0 != $1 }
        throw RankDifference(
            what: what, rank: other, expected: pair.map { String($0.0) } ?? "\(lines.0.count) lines",
            found: pair.map { String($0.1) } ?? "\(lines.1.count) lines")
    }

    private func reduced(_ numbers: [Int], _ combine: ([Int]) -> Int) throws -> [Int] {
        let all = try collected(numbers)
        return numbers.indices.map { index in combine(all.map { $0[index] }) }
    }
}

/// Ranks of one run that were started with different things.
public struct RankDifference: Error, Sendable, Equatable, CustomStringConvertible {
    /// What differs: the recipe, the program, the data.
    public let what: String
    /// The lowest rank that differs from rank 0.
    public let rank: Int
    /// What rank 0 has.
    public let expected: String
    /// What the other has.
    public let found: String

    /// What is wrong, where, and what would work.
    public var description: String {
        """
        rank \(rank) was started with another \(what) than rank 0: '\(found)' instead of '\(expected)'; \
        start all ranks with the same
        """
    }
}
