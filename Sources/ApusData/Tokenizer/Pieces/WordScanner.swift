/// Finds the ends of words in text, by the classes of its scalars.
///
/// Each function does what its regular expression would: alternatives in order, the first that matches wins.
struct WordScanner {
    private let text: UnsafePointer<UInt8>
    /// Where the text ends: patterns look ahead up to here.
    private let end: Int
    private let classes: ScalarClasses.View

    init(_ text: UnsafePointer<UInt8>, end: Int, classes: ScalarClasses.View) {
        self.text = text
        self.end = end
        self.classes = classes
    }

    private static let apostrophe = UInt8(ascii: "'")
    private static let blank = UInt8(ascii: " ")

    /// End of the word that begins at `start`, by the pattern of GPT-2.
    @inline(__always)
    func gpt2(_ start: Int) -> Int {
        let byte = text[start]
        if byte == WordScanner.apostrophe {
            let length = contraction(start + 1)
            if length > 0 { return start &+ 1 &+ length }
        }
        var (kind, length) = classes.at(start, in: text, end: end)
        var place = start &+ length
        if byte == WordScanner.blank, place < end {
            let (nextKind, nextLength) = classes.at(place, in: text, end: end)
            if nextKind & ScalarClass.space == 0 {
                kind = nextKind
                length = nextLength
                place &+= length
            }
        }
        if kind & ScalarClass.space != 0 { return spaces(start, place, length) }
        return run(of: kind & ScalarClass.named, from: place)
    }

    /// End of the word that begins at `start`, by the pattern of Llama 3 and Qwen 2.
    ///
    /// - Parameter digits: longest number.
    @inline(__always)
    func marked(_ start: Int, digits: Int) -> Int {
        let byte = text[start]
        if byte == WordScanner.apostrophe {
            let length = contractionOfAnyCase(start + 1)
            if length > 0 { return start &+ 1 &+ length }
        }
        let (kind, length) = classes.at(start, in: text, end: end)
        let place = start &+ length
        if kind & ScalarClass.letter != 0 { return run(of: ScalarClass.letter, from: place) }
        if kind & ScalarClass.number != 0 { return number(from: place, left: digits &- 1) }
        if place < end, byte != 0x0A, byte != 0x0D {
            let (nextKind, nextLength) = classes.at(place, in: text, end: end)
            if nextKind & ScalarClass.letter != 0 { return run(of: ScalarClass.letter, from: place &+ nextLength) }
            if byte == WordScanner.blank, nextKind & ScalarClass.named == 0 {
                return lineBreaks(run(of: 0, from: place &+ nextLength))
            }
        }
        if kind & ScalarClass.space == 0 { return lineBreaks(run(of: 0, from: place)) }
        return linesAndSpaces(start)
    }

    // MARK: Parts

    /// End of the run of scalars of one class.
    @inline(__always)
    private func run(of kind: UInt8, from start: Int) -> Int {
        var place = start
        while place < end {
            let (found, length) = classes.at(place, in: text, end: end)
            if found & ScalarClass.named != kind { break }
            place &+= length
        }
        return place
    }

    @inline(__always)
    private func number(from start: Int, left: Int) -> Int {
        var place = start
        var left = left
        while left > 0, place < end {
            let (found, length) = classes.at(place, in: text, end: end)
            if found & ScalarClass.number == 0 { break }
            place &+= length
            left &-= 1
        }
        return place
    }

    @inline(__always)
    private func lineBreaks(_ start: Int) -> Int {
        var place = start
        while place < end, text[place] == 0x0A || text[place] == 0x0D { place &+= 1 }
        return place
    }

    /// `\s+(?!\S)|\s+`: all the space, but the last scalar of it belongs to a word that follows.
    ///
    /// - Parameters:
    ///   - place: end of the first space, which begins at `start`.
    ///   - length: bytes of the first space.
    private func spaces(_ start: Int, _ place: Int, _ length: Int) -> Int {
        var place = place
        var last = length
        while place < end {
            let (kind, length) = classes.at(place, in: text, end: end)
            if kind & ScalarClass.space == 0 { return place - last > start ? place - last : place }
            place += length
            last = length
        }
        return place
    }

    /// `\s*[\r\n]+|\s+(?!\S)|\s+`: space up to its last line break, or as ``spaces(_:_:_:)``.
    private func linesAndSpaces(_ start: Int) -> Int {
        var place = start
        var afterBreak = start
        var last = 0
        while place < end {
            let (kind, length) = classes.at(place, in: text, end: end)
            if kind & ScalarClass.space == 0 { break }
            place += length
            last = length
            if text[place - 1] == 0x0A || text[place - 1] == 0x0D { afterBreak = place }
        }
        if afterBreak > start { return afterBreak }
        return place < end && place - last > start ? place - last : place
    }

    /// Length of `s|t|re|ve|m|ll|d` at `place`, or 0.
    private func contraction(_ place: Int) -> Int {
        guard place < end else { return 0 }
        switch text[place] {
        case UInt8(ascii: "s"), UInt8(ascii: "t"), UInt8(ascii: "m"), UInt8(ascii: "d"): return 1
        case UInt8(ascii: "r"), UInt8(ascii: "v"):
            return place + 1 < end && text[place + 1] == UInt8(ascii: "e") ? 2 : 0
        case UInt8(ascii: "l"): return place + 1 < end && text[place + 1] == UInt8(ascii: "l") ? 2 : 0
        default: return 0
        }
    }

    /// The same for letters of any case, the long s among them.
    private func contractionOfAnyCase(_ place: Int) -> Int {
        guard place < end else { return 0 }
        let second = place + 1 < end ? text[place + 1] : 0
        switch text[place] | 0x20 {
        case UInt8(ascii: "s"), UInt8(ascii: "t"), UInt8(ascii: "m"), UInt8(ascii: "d"): return 1
        case UInt8(ascii: "r"), UInt8(ascii: "v"): return second | 0x20 == UInt8(ascii: "e") ? 2 : 0
        case UInt8(ascii: "l"): return second | 0x20 == UInt8(ascii: "l") ? 2 : 0
        // U+017F, which is an s to a pattern that ignores case.
        case 0xC5 | 0x20: return text[place] == 0xC5 && second == 0xBF ? 2 : 0
        default: return 0
        }
    }
}
