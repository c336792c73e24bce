/// Seeded damage to valid files: of bytes, and of what the bytes mean.
///
/// Damage number n is a function of the seed and n alone, whatever thread asks for it, so that one that breaks a reader
/// can be made again.
public struct Mutator: Sendable {
    private let originals: [[UInt8]]
    private let seed: UInt64
    private let words: [[UInt8]]
    private let fields: Range<Int>
    private let repair: (@Sendable (inout [UInt8]) -> Void)?

    /// Words of JSON.
    public static let json = [
        "{", "}", "[", "]", ",", ":", "\"", "\\", "\\u0000", "\\ud800", "\\ud83d\\ude00", "null", "true", "false", "{}",
        "[]", "\"\"", "\u{0}", "\u{FEFF}", "é", "😀", " ", "\n", "-", ".", "e", "0",
    ]

    /// - Parameters:
    ///   - originals: valid files; damage may join the beginning of one to the end of another.
    ///   - words: what the format is made of.
    ///   - fields: bytes at the start that hold binary numbers, which are damaged more often than chance would.
    ///   - repair: makes a frame around the damage right again, such as a length; done to every other damaged file.
    public init(
        _ originals: [[UInt8]], seed: UInt64, words: [String] = Mutator.json, fields: Range<Int> = 0..<0,
        repair: (@Sendable (inout [UInt8]) -> Void)? = nil
    ) {
        precondition(originals.allSatisfy { !$0.isEmpty } && !originals.isEmpty && !words.isEmpty)
        self.originals = originals
        self.seed = seed
        self.words = words.map { Array($0.utf8) }
        self.fields = fields
        self.repair = repair
    }

    /// The files as they are.
    public var files: [[UInt8]] { originals }

    /// Makes damaged file number `round` in `bytes`, whose room is used again.
    public func damage(_ round: Int, into bytes: inout [UInt8]) {
        var random = Draws(SeededGenerator(seed: seed &+ UInt64(round) &* 0xd129_0b26_31c5_0d95))
        bytes.removeAll(keepingCapacity: true)
        bytes.append(contentsOf: originals[round % originals.count])
        for _ in 0...random.below(4) {
            if bytes.isEmpty { return }
            damageOnce(&bytes, &random)
        }
        if let repair, random.below(2) == 0 { repair(&bytes) }
    }

    private func damageOnce(_ bytes: inout [UInt8], _ random: inout Draws) {
        let at = random.below(bytes.count)
        let stretch = at..<min(bytes.count, at + 1 + random.below(32))
        switch random.below(16) {
        case 0, 1: bytes[at] ^= 1 << UInt8(random.below(8))
        case 2: bytes[at] = UInt8(random.below(256))
        case 3: bytes.insert(contentsOf: random.pick(words), at: at)
        case 4, 5: bytes.replaceSubrange(stretch, with: random.pick(words))
        case 6: bytes.removeSubrange(stretch)
        case 7: bytes.insert(contentsOf: Array(bytes[stretch]), at: random.below(bytes.count + 1))
        case 8: bytes.removeLast(random.below(8) == 0 ? random.below(bytes.count) : random.below(min(bytes.count, 40)))
        case 9: splice(&bytes, at, &random)
        case 10, 11: changeNumber(&bytes, from: at, &random)
        case 12: moveItem(&bytes, from: at, &random)
        case 13 where random.below(8) == 0: nest(&bytes, at, &random)
        case 14 where !fields.isEmpty: setField(&bytes, &random)
        default: bytes.swapAt(at, random.below(bytes.count))
        }
    }

    /// The end of some original, from some place on, behind the beginning of this file.
    private func splice(_ bytes: inout [UInt8], _ at: Int, _ random: inout Draws) {
        let other = random.pick(originals)
        bytes.removeLast(bytes.count - at)
        bytes.append(contentsOf: other[random.below(other.count)...])
    }

    /// A number that is written in digits becomes its neighbour, or one at the edge of what some type holds.
    private func changeNumber(_ bytes: inout [UInt8], from at: Int, _ random: inout Draws) {
        let isDigit = { (byte: UInt8) in byte >= 0x30 && byte <= 0x39 }
        guard let first = bytes[at...].firstIndex(where: isDigit) else { return }
        let end = bytes[first...].firstIndex { !isDigit($0) } ?? bytes.count
        if random.below(2) == 0 {
            let last = bytes[end - 1]
            bytes[end - 1] = random.below(2) == 0 ? min(last + 1, 0x39) : max(last - 1, 0x30)
        } else {
            bytes.replaceSubrange(first..<end, with: random.pick(Mutator.numbers))
        }
    }

    private static let numbers: [[UInt8]] = [
        "0", "-1", "1", "7", "255", "256", "65535", "65536", "1048576", "2147483647", "2147483648", "4294967295",
        "4294967296", "281474976710656", "9223372036854775807", "9223372036854775808", "18446744073709551616",
        "99999999999999999999999", "0.5", "1e9", "1e308", "1e999", "-0", "00", "1.", "nan",
    ].map { Array($0.utf8) }

    /// An item, up to a comma or the end of a line, is written twice, or taken to another place.
    private func moveItem(_ bytes: inout [UInt8], from at: Int, _ random: inout Draws) {
        let ends: (UInt8) -> Bool = { $0 == UInt8(ascii: ",") || $0 == 0x0A }
        guard let begin = bytes[at...].firstIndex(where: ends),
            let end = bytes[(begin + 1)...].firstIndex(where: ends), end - begin < 512
        else { return }
        let item = Array(bytes[begin..<end])
        if random.below(2) == 0 { bytes.removeSubrange(begin..<end) }
        var place = random.below(bytes.count + 1)
        if let near = bytes[place...].firstIndex(where: ends) { place = near }
        bytes.insert(contentsOf: item, at: place)
    }

    /// Groups within groups, far more than any reader should follow.
    private func nest(_ bytes: inout [UInt8], _ at: Int, _ random: inout Draws) {
        let part = random.pick(Mutator.openings)
        let depth = 1 << random.below(12)
        bytes.insert(contentsOf: (0..<depth).flatMap { _ in part }, at: at)
    }

    private static let openings: [[UInt8]] = ["[", "{\"a\":", "[[", "{\"\":["].map { Array($0.utf8) }

    /// One, two, four or eight bytes become a number that is small, large, or next to a power of two.
    private func setField(_ bytes: inout [UInt8], _ random: inout Draws) {
        let size = 1 << random.below(4)
        let first = fields.lowerBound + random.below(max(1, fields.count / size)) * size
        var value = UInt64(1) << UInt64(random.below(64))
        switch random.below(4) {
        case 0: value = UInt64(random.below(300))
        case 1: value &-= 1
        case 2: value = 0 &- value
        default: break
        }
        for index in first..<max(first, min(first + size, bytes.count)) {
            bytes[index] = UInt8(truncatingIfNeeded: value)
            value >>= 8
        }
    }
}

/// Draws of whole numbers, as fast as damage wants them; that small ones come a little more often does not matter.
private struct Draws {
    private var generator: SeededGenerator

    init(_ generator: SeededGenerator) { self.generator = generator }

    mutating func below(_ limit: Int) -> Int { Int(truncatingIfNeeded: generator.next() >> 1) % limit }

    mutating func pick<Element>(_ elements: [Element]) -> Element { elements[below(elements.count)] }
}
