/// Normalisation form C: marks in their canonical order, letters and marks joined where one scalar stands for both.
///
/// Unicode, annex 15. Bytes that are no text stay as they are and join with nothing.
final class Composition: Sendable {
    /// Built at first use, in about a millisecond.
    static let shared = Composition()

    private let classOf: [UInt32: UInt8]
    private let parts: [UInt32: (UInt32, UInt32?)]
    private let whole: [UInt64: UInt32]

    private init() {
        var classOf: [UInt32: UInt8] = [:]
        for entry in CanonicalTables.combiningClasses.chunks(of: 2) { classOf[entry[0]] = UInt8(entry[1]) }
        var parts: [UInt32: (UInt32, UInt32?)] = [:]
        for entry in CanonicalTables.singles.chunks(of: 2) { parts[entry[0]] = (entry[1], nil) }
        var whole: [UInt64: UInt32] = [:]
        let excluded = Set(CanonicalTables.excluded)
        for entry in CanonicalTables.pairs.chunks(of: 3) {
            parts[entry[0]] = (entry[1], entry[2])
            if !excluded.contains(entry[0]) { whole[UInt64(entry[1]) << 32 | UInt64(entry[2])] = entry[0] }
        }
        self.classOf = classOf
        self.parts = parts
        self.whole = whole
    }

    /// Scalars that form C replaces, reorders, or joins to the one before: text without any is in form C.
    var unstableScalars: Set<UInt32> {
        var found = Set(classOf.keys)
        found.formUnion(parts.keys.filter { composed(decomposed($0)) != [$0] })
        found.formUnion(whole.keys.map { UInt32(truncatingIfNeeded: $0) })
        found.formUnion(Hangul.vowels)
        found.formUnion(Hangul.tails)
        return found
    }

    /// The text in form C, or nil if it is already.
    func normalized(_ text: UnsafePointer<UInt8>, _ range: Range<Int>) -> [UInt8]? {
        let classes = ScalarClasses.shared.view
        var result: [UInt8]?
        var copied = range.lowerBound
        var place = range.lowerBound
        var lastStable = place
        while place < range.upperBound {
            let (kind, length) = classes.at(place, in: text, end: range.upperBound)
            if kind & ScalarClass.unstable == 0 {
                lastStable = place
                place += length
                continue
            }
            // From the last scalar that nothing before can change, to the next such one.
            var end = place
            while end < range.upperBound {
                let (kind, length) = classes.at(end, in: text, end: range.upperBound)
                if kind & ScalarClass.unstable == 0 { break }
                end += length
            }
            if result == nil {
                result = []
                result?.reserveCapacity(range.count + 64)
            }
            result?.append(contentsOf: UnsafeBufferPointer(start: text + copied, count: lastStable - copied))
            result?.append(contentsOf: compose(text, lastStable..<end))
            copied = end
            place = end
            lastStable = end
        }
        result?.append(contentsOf: UnsafeBufferPointer(start: text + copied, count: range.upperBound - copied))
        return result
    }

    private func compose(_ text: UnsafePointer<UInt8>, _ range: Range<Int>) -> [UInt8] {
        var bytes: [UInt8] = []
        var scalars: [UInt32] = []
        var place = range.lowerBound
        while place < range.upperBound {
            let (scalar, length) = UTF8Scalar.decode(text, place, range.upperBound)
            if scalar == UTF8Scalar.invalid { bytes.append(text[place]) } else { scalars += decomposed(scalar) }
            place += length
        }
        for scalar in composed(scalars) { UTF8Scalar.append(scalar, to: &bytes) }
        return bytes
    }

    private func combiningClass(_ scalar: UInt32) -> UInt8 { classOf[scalar] ?? 0 }

    private func decomposed(_ scalar: UInt32) -> [UInt32] {
        if let syllable = Hangul.parts(scalar) { return syllable }
        guard let (first, second) = parts[scalar] else { return [scalar] }
        return decomposed(first) + (second.map { decomposed($0) } ?? [])
    }

    private func composed(_ decomposed: [UInt32]) -> [UInt32] {
        var scalars = decomposed
        // Marks are sorted by class between starters; equal classes keep their order.
        var start = 0
        while start < scalars.count {
            guard combiningClass(scalars[start]) != 0 else {
                start += 1
                continue
            }
            var end = start
            while end < scalars.count, combiningClass(scalars[end]) != 0 { end += 1 }
            let marks = scalars[start..<end].enumerated().sorted {
                (combiningClass($0.element), $0.offset) < (combiningClass($1.element), $1.offset)
            }
            scalars.replaceSubrange(start..<end, with: marks.map(\.element))
            start = end
        }
        var result: [UInt32] = []
        var starter: Int?
        var lastClass: UInt8 = 0
        for scalar in scalars {
            let own = combiningClass(scalar)
            // Something between the starter and this mark of the same or a higher class stands in its way.
            if let starter, result.count == starter + 1 || (lastClass < own && lastClass != 0),
                let joined = join(result[starter], scalar)
            {
                result[starter] = joined
                continue
            }
            if own == 0 { starter = result.count }
            lastClass = own
            result.append(scalar)
        }
        return result
    }

    private func join(_ first: UInt32, _ second: UInt32) -> UInt32? {
        Hangul.whole(first, second) ?? whole[UInt64(first) << 32 | UInt64(second)]
    }
}

/// Korean syllables, which are computed (The Unicode Standard, section 3.12).
private enum Hangul {
    static let vowels: Range<UInt32> = 0x1161..<0x1176
    static let tails: Range<UInt32> = 0x11A8..<0x11C3
    private static let leads: Range<UInt32> = 0x1100..<0x1113
    private static let syllables: Range<UInt32> = 0xAC00..<0xD7A4
    /// One before the first tail: a syllable's place 0 among its 28 is to have none.
    private static let tailBase: UInt32 = 0x11A7

    static func parts(_ scalar: UInt32) -> [UInt32]? {
        guard syllables.contains(scalar) else { return nil }
        let index = scalar - syllables.lowerBound
        let open = [leads.lowerBound + index / 588, vowels.lowerBound + index % 588 / 28]
        return index % 28 == 0 ? open : open + [tailBase + index % 28]
    }

    static func whole(_ first: UInt32, _ second: UInt32) -> UInt32? {
        if leads.contains(first), vowels.contains(second) {
            return syllables.lowerBound + ((first - leads.lowerBound) * 21 + second - vowels.lowerBound) * 28
        }
        if syllables.contains(first), (first - syllables.lowerBound) % 28 == 0, tails.contains(second) {
            return first + second - tailBase
        }
        return nil
    }
}

extension Array {
    /// Consecutive pieces of `size` elements.
    fileprivate func chunks(of size: Int) -> [[Element]] {
        stride(from: 0, to: count, by: size).map { Array(self[$0..<$0 + size]) }
    }
}
