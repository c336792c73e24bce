/// One way of cutting text into pieces.
enum Splitter: Sendable, Equatable {
    /// Words of a pattern.
    case words(WordPattern)
    /// Digits apart from the rest, each by itself or as runs.
    case digits(individually: Bool)

    /// End of the piece that begins at `start`.
    @inline(__always)
    func pieceEnd(_ text: UnsafePointer<UInt8>, _ start: Int, _ end: Int, _ classes: ScalarClasses.View) -> Int {
        switch self {
        case .words(.gpt2): return WordScanner(text, end: end, classes: classes).gpt2(start)
        case .words(.llama3): return WordScanner(text, end: end, classes: classes).marked(start, digits: 3)
        case .words(.qwen2): return WordScanner(text, end: end, classes: classes).marked(start, digits: 1)
        case .digits(let individually):
            let (kind, length) = classes.at(start, in: text, end: end)
            let isDigit = kind & ScalarClass.digit != 0
            var place = start + length
            if isDigit, individually { return place }
            while place < end {
                let (kind, length) = classes.at(place, in: text, end: end)
                if (kind & ScalarClass.digit != 0) != isDigit { break }
                place += length
            }
            return place
        }
    }
}
