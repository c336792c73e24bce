/// A run of tokens made of documents, read from memory or from shards.
public protocol TokenSource: Sendable {
    /// Tokens.
    var count: Int { get }
    /// Copies tokens `range` into `target`, which has room for them.
    ///
    /// - Throws: ``DataError`` when a file is no longer what it was.
    func read(_ range: Range<Int>, into target: UnsafeMutableBufferPointer<Int32>) throws
    /// The places in `range.lowerBound + 1 ... range.upperBound` at which a document begins or the last one ends,
    /// ascending.
    func documentStarts(in range: Range<Int>) throws -> [Int]
}

extension TokenSource {
    /// Tokens `range`.
    ///
    /// - Throws: ``DataError`` when a file is no longer what it was.
    public func tokens(_ range: Range<Int>) throws -> [Int32] {
        try [Int32](unsafeUninitializedCapacity: range.count) { buffer, count in
            try read(range, into: buffer)
            count = range.count
        }
    }
}

/// Tokens that are in memory.
public struct MemoryTokens: TokenSource {
    private let tokens: ArraySlice<Int32>
    /// Places after the last tokens of documents, ascending, counted from the first of `tokens`.
    private let ends: [Int]

    /// Tokens, and the places in them (of the slice's own indices) that follow the last token of a document; others are
    /// passed over.
    public init(_ tokens: ArraySlice<Int32>, documentEnds: [Int] = []) {
        self.tokens = tokens
        ends = documentEnds.filter { $0 > tokens.startIndex && $0 <= tokens.endIndex }.map { $0 - tokens.startIndex }
    }

    /// Tokens.
    public var count: Int { tokens.count }

    /// Copies tokens.
    public func read(_ range: Range<Int>, into target: UnsafeMutableBufferPointer<Int32>) {
        let first = tokens.startIndex + range.lowerBound
        _ = target.update(fromContentsOf: tokens[first..<first + range.count])
    }

    /// Starts of documents.
    public func documentStarts(in range: Range<Int>) -> [Int] {
        var (low, high) = (0, ends.count)
        while low < high {
            let middle = (low + high) / 2
            if ends[middle] > range.lowerBound { high = middle } else { low = middle + 1 }
        }
        return Array(ends[low...].prefix { $0 <= range.upperBound })
    }
}
