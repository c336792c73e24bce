import ApusTensor

/// The merges of a file as text, in one run of bytes, until the vocabulary they refer to is known.
struct MergeTexts {
    private var bytes: [UInt8] = []
    /// End of each left half and of each right half.
    private var ends: [Int32] = []

    /// Reads the list, of texts with one space or of pairs of texts.
    mutating func read(_ scanner: inout JSONScanner) throws {
        var list = try scanner.beginArray()
        while try scanner.nextElement(in: &list) {
            if try scanner.nextKind() == .array {
                var pair = try scanner.beginArray()
                for _ in 0..<2 {
                    guard try scanner.nextElement(in: &pair) else {
                        throw scanner.fault("a merge of less than two texts")
                    }
                    try scanner.appendString(to: &bytes, "half of a merge")
                    ends.append(Int32(bytes.count))
                }
                if try scanner.nextElement(in: &pair) { throw scanner.fault("a merge of more than two texts") }
            } else {
                try readLine(&scanner)
            }
        }
    }

    private mutating func readLine(_ scanner: inout JSONScanner) throws {
        let start = bytes.count
        try scanner.appendString(to: &bytes, "a merge: two texts, or one with a space between")
        // A slice that lives on would make the next change copy all that was read.
        let (isHeader, spaces) = bytes.withUnsafeBufferPointer { all in
            let line = all[start...]
            return (line.starts(with: "#version".utf8), (line.firstIndex(of: 0x20), line.lastIndex(of: 0x20)))
        }
        // The first line of the older format of two files.
        if isHeader {
            bytes.removeSubrange(start...)
            return
        }
        guard let space = spaces.0, space == spaces.1 else {
            throw scanner.fault("the merge '\(text(start..<bytes.count))', which is not two texts with a space between")
        }
        bytes.remove(at: space)
        ends.append(Int32(space))
        ends.append(Int32(bytes.count))
    }

    /// The merges in ids.
    func rules(_ parts: TokenizerParts) throws(TokenizerError) -> [MergeRule] {
        var rules: [MergeRule] = []
        rules.reserveCapacity(ends.count / 2)
        for index in stride(from: 0, to: ends.count, by: 2) {
            let start = index == 0 ? 0 : Int(ends[index - 1])
            let middle = Int(ends[index])
            let end = Int(ends[index + 1])
            guard let left = id(start..<middle, parts), let right = id(middle..<end, parts),
                let result = id(start..<end, parts)
            else {
                let missing = [start..<middle, middle..<end, start..<end].first { id($0, parts) == nil } ?? start..<end
                throw parts.inconsistent(
                    "merge \(index / 2) of '\(text(start..<middle))' and '\(text(middle..<end))' needs the token "
                        + "'\(text(missing))', which is not in the vocabulary")
            }
            rules.append(MergeRule(left: UInt32(left), right: UInt32(right), result: UInt32(result)))
        }
        return rules
    }

    private func id(_ range: Range<Int>, _ parts: TokenizerParts) -> Int? {
        bytes.withUnsafeBufferPointer { parts.tokens.id(of: UnsafeBufferPointer(rebasing: $0[range])) }
    }

    private func text(_ range: Range<Int>) -> String { String(decoding: bytes[range], as: UTF8.self) }
}
