/// Finds added tokens in text: the leftmost, and of those that begin at one place the longest.
struct TokenFinder: Sendable {
    /// Text between tokens, or a token.
    struct Part {
        var range: Range<Int>
        /// nil for text.
        var id: Int32?
    }

    private let tokens: [AddedToken]
    private let trie: ByteTrie
    let isEmpty: Bool

    /// - Parameter texts: what is looked for, one for each token; empty ones are never found.
    init(_ tokens: [AddedToken], texts: [[UInt8]]) {
        self.tokens = tokens
        trie = ByteTrie(texts)
        isEmpty = texts.allSatisfy(\.isEmpty)
    }

    /// Cuts a text at its tokens, in order.
    ///
    /// - Parameter readsSpecial: whether special tokens count; where one stands, no other is looked for either way.
    func parts(_ text: UnsafePointer<UInt8>, _ range: Range<Int>, readsSpecial: Bool) -> [Part] {
        guard !isEmpty else { return range.isEmpty ? [] : [Part(range: range)] }
        var parts: [Part] = []
        var textStart = range.lowerBound
        var place = range.lowerBound
        while true {
            place = trie.nextBeginning(text, place, range.upperBound)
            if place == range.upperBound { break }
            guard let match = trie.longest(text, place, range.upperBound) else {
                place &+= 1
                continue
            }
            let found = place..<place + match.length
            place = found.upperBound
            guard let taken = taken(match.index, text, found, range, after: textStart, readsSpecial) else { continue }
            if textStart < taken.lowerBound { parts.append(Part(range: textStart..<taken.lowerBound)) }
            parts.append(Part(range: taken, id: tokens[match.index].id))
            textStart = taken.upperBound
        }
        if textStart != range.upperBound { parts.append(Part(range: textStart..<range.upperBound)) }
        return parts
    }

    /// What the token takes of the text, or nil if it does not count here.
    private func taken(
        _ index: Int, _ text: UnsafePointer<UInt8>, _ found: Range<Int>, _ range: Range<Int>, after textStart: Int,
        _ readsSpecial: Bool
    ) -> Range<Int>? {
        let token = tokens[index]
        if token.isSpecial, !readsSpecial { return nil }
        let classes = ScalarClasses.shared.view
        var (start, end) = (found.lowerBound, found.upperBound)
        if token.isSingleWord {
            if end < range.upperBound,
                classes.at(end, in: text, end: range.upperBound).class & ScalarClass.word != 0
            {
                return nil
            }
            if start > range.lowerBound {
                let before = UTF8Scalar.before(text, start, from: range.lowerBound).scalar
                if before != UTF8Scalar.invalid, classes[before] & ScalarClass.word != 0 { return nil }
            }
        }
        if token.stripsLeft {
            while start > range.lowerBound {
                let (scalar, place) = UTF8Scalar.before(text, start, from: range.lowerBound)
                guard scalar != UTF8Scalar.invalid, classes[scalar] & ScalarClass.space != 0 else { break }
                start = place
            }
            start = max(start, textStart)
        }
        if token.stripsRight {
            while end < range.upperBound {
                let (kind, length) = classes.at(end, in: text, end: range.upperBound)
                guard kind & ScalarClass.space != 0 else { break }
                end += length
            }
        }
        return start..<max(start, end)
    }
}
