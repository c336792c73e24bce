extension Tokenizer {
    /// Bytes of text that one thread takes at a time: a few milliseconds of work.
    static let partBytes = 1 << 17

    /// Ranges of a document that give the same ids one by one as together.
    ///
    /// A line break between two visible ASCII characters is such a place for every pattern: the break belongs to what
    /// stands before it, alone or at the end of a run of signs, and no word looks past it. Added tokens may reach over
    /// it, and so may prefixes: then the document stays whole.
    func cuts(_ text: [UInt8]) -> [Range<Int>] {
        guard text.count >= 2 * Tokenizer.partBytes, canCutLines else { return [0..<text.count] }
        var ranges: [Range<Int>] = []
        var start = 0
        text.withUnsafeBufferPointer { text in
            let visible: ClosedRange<UInt8> = 0x21...0x7E
            var place = Tokenizer.partBytes
            while place < text.count - 1 {
                if text[place] == 0x0A, visible.contains(text[place - 1]), visible.contains(text[place + 1]) {
                    ranges.append(start..<place + 1)
                    start = place + 1
                    place += Tokenizer.partBytes
                } else {
                    place += 1
                }
            }
        }
        return ranges + [start..<text.count]
    }

    private var canCutLines: Bool {
        guard case .words? = preTokenizer.splitters.last, !preTokenizer.addsPrefixSpace,
            preTokenizer.metaspace == nil, normalizers.allSatisfy({ $0 == .composition })
        else { return false }
        return parts.addedTokens.allSatisfy { token in
            !token.stripsLeft && !token.content.utf8.contains { $0 == 0x0A }
        }
    }

    /// Appends the ids of one text to `work`.
    func encode(_ bytes: UnsafeBufferPointer<UInt8>, readsSpecial: Bool, _ work: EncodingWorkspace) {
        guard let text = bytes.baseAddress else { return }
        for part in finders.raw.parts(text, 0..<bytes.count, readsSpecial: readsSpecial) {
            if let id = part.id {
                work.append([id])
            } else if let changed = normalizers.normalized(text, part.range) {
                changed.withUnsafeBufferPointer { changed in
                    guard let start = changed.baseAddress else { return }
                    encode(
                        start, 0..<changed.count, readable: changed.count, beginsText: part.range.lowerBound == 0,
                        readsSpecial, work)
                }
            } else {
                encode(
                    text, part.range, readable: bytes.count, beginsText: part.range.lowerBound == 0, readsSpecial, work)
            }
        }
    }

    /// Appends the ids of normalised text.
    ///
    /// - Parameter readable: bytes that may be read from `text` on.
    private func encode(
        _ text: UnsafePointer<UInt8>, _ range: Range<Int>, readable: Int, beginsText: Bool, _ readsSpecial: Bool,
        _ work: EncodingWorkspace
    ) {
        if finders.normalized.isEmpty {
            cut(text, range, readable: readable, beginsText: beginsText, work)
            return
        }
        for part in finders.normalized.parts(text, range, readsSpecial: readsSpecial) {
            if let id = part.id {
                work.append([id])
            } else {
                let isFirst = beginsText && part.range.lowerBound == range.lowerBound
                cut(text, part.range, readable: readable, beginsText: isFirst, work)
            }
        }
    }

    /// Appends the ids of text without added tokens.
    private func cut(
        _ text: UnsafePointer<UInt8>, _ range: Range<Int>, readable: Int, beginsText: Bool, _ work: EncodingWorkspace
    ) {
        if range.isEmpty { return }
        if let metaspace = preTokenizer.metaspace {
            cutAtMarks(metaspace, text, range, beginsText: beginsText, work)
        } else if preTokenizer.addsPrefixSpace, text[range.lowerBound] != 0x20 {
            let prefixed = [0x20] + UnsafeBufferPointer(start: text + range.lowerBound, count: range.count)
            prefixed.withUnsafeBufferPointer { prefixed in
                guard let start = prefixed.baseAddress else { return }
                words(start, 0..<prefixed.count, readable: prefixed.count, preTokenizer.splitters[...], work)
            }
        } else {
            words(text, range, readable: readable, preTokenizer.splitters[...], work)
        }
    }

    /// Cuts text by the first splitter, its pieces by the next, and encodes what comes out at the end.
    private func words(
        _ text: UnsafePointer<UInt8>, _ range: Range<Int>, readable: Int, _ splitters: ArraySlice<Splitter>,
        _ work: EncodingWorkspace
    ) {
        guard let splitter = splitters.first else {
            whole(text, range, readable: readable, work)
            return
        }
        let classes = ScalarClasses.shared.view
        let pairs = model.pairs.view
        let end = range.upperBound
        var start = range.lowerBound
        if splitters.count > 1 {
            while start < end {
                let next = splitter.pieceEnd(text, start, end, classes)
                words(text, start..<next, readable: readable, splitters.dropFirst(), work)
                start = next
            }
            return
        }
        while start < end {
            let next = splitter.pieceEnd(text, start, end, classes)
            model.encode(text + start, next &- start, readable: readable &- start, pairs, work)
            start = next
        }
    }

    /// Encodes text that nothing cuts, by pieces where that gives the same ids.
    private func whole(_ text: UnsafePointer<UInt8>, _ range: Range<Int>, readable: Int, _ work: EncodingWorkspace) {
        let pairs = model.pairs.view
        guard let mark = safeMark else {
            model.encode(text + range.lowerBound, range.count, readable: readable - range.lowerBound, pairs, work)
            return
        }
        mark.withUnsafeBufferPointer { mark in
            var start = range.lowerBound
            while start < range.upperBound {
                var next = start
                // A run of marks stays with what follows it.
                while Tokenizer.stands(mark, text, next, range.upperBound) { next &+= mark.count }
                next = Tokenizer.nextMark(mark, text, next, range.upperBound)
                model.encode(text + start, next &- start, readable: readable &- start, pairs, work)
                start = next
            }
        }
    }

    @inline(__always)
    private static func stands(
        _ mark: UnsafeBufferPointer<UInt8>, _ text: UnsafePointer<UInt8>, _ place: Int, _ end: Int
    ) -> Bool {
        guard place &+ mark.count <= end else { return false }
        for offset in 0..<mark.count where text[place &+ offset] != mark[offset] { return false }
        return true
    }

    /// Where a mark stands next, or `end`.
    @inline(__always)
    private static func nextMark(
        _ mark: UnsafeBufferPointer<UInt8>, _ text: UnsafePointer<UInt8>, _ place: Int, _ end: Int
    ) -> Int {
        var place = place
        while place < end, text[place] != mark[0] || !stands(mark, text, place, end) { place &+= 1 }
        return place
    }

    private func cutAtMarks(
        _ metaspace: PreTokenizer.Metaspace, _ text: UnsafePointer<UInt8>, _ range: Range<Int>, beginsText: Bool,
        _ work: EncodingWorkspace
    ) {
        var mark: [UInt8] = []
        UTF8Scalar.append(metaspace.mark, to: &mark)
        let source = UnsafeBufferPointer(start: text + range.lowerBound, count: range.count)
        var marked = Normalizer.replacing([0x20], by: mark, text, range) ?? Array(source)
        let wantsPrefix = metaspace.prepend == .always || (metaspace.prepend == .first && beginsText)
        if wantsPrefix, !marked.starts(with: mark) { marked = mark + marked }
        marked.withUnsafeBufferPointer { marked in
            guard let start = marked.baseAddress else { return }
            guard metaspace.cuts else {
                whole(start, 0..<marked.count, readable: marked.count, work)
                return
            }
            let pairs = model.pairs.view
            mark.withUnsafeBufferPointer { mark in
                var place = 0
                while place < marked.count {
                    let next = Tokenizer.nextMark(mark, start, place + 1, marked.count)
                    model.encode(start + place, next - place, readable: marked.count - place, pairs, work)
                    place = next
                }
            }
        }
    }
}
