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
                    bytes.append(contentsOf: try scanner.string("half of a merge").utf8)
                    ends.append(Int32(bytes.count))
                }
                if try scanner.nextElement(in: &pair) { throw scanner.fault("a merge of more than two texts") }
            } else {
                try append(try scanner.string("a merge: two texts, or one with a space between"), &scanner)
            }
        }
    }

    private mutating func append(_ line: String, _ scanner: inout JSONScanner) throws {
        // The first line of the older format of two files.
        if line.hasPrefix("#version") { return }
        var spaces = 0
        for byte in line.utf8 {
            if byte == 0x20 {
                spaces += 1
                ends.append(Int32(bytes.count))
            } else {
                bytes.append(byte)
            }
        }
        if spaces != 1 { throw scanner.fault("the merge '\(line)', which is not two texts with a space between") }
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
