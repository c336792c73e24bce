/// How text is changed before it is cut.
enum Normalizer: Sendable, Equatable {
    /// Normalisation form C.
    case composition
    /// This is put before text that is not empty.
    case prepend([UInt8])
    /// Every occurrence of the first becomes the second; the first is not empty.
    case replace([UInt8], [UInt8])

    /// The changed text, or nil if nothing changes.
    func normalized(_ text: UnsafePointer<UInt8>, _ range: Range<Int>) -> [UInt8]? {
        switch self {
        case .composition: return Composition.shared.normalized(text, range)
        case .prepend(let bytes):
            return range.isEmpty ? nil : bytes + UnsafeBufferPointer(start: text + range.lowerBound, count: range.count)
        case .replace(let pattern, let content):
            return Normalizer.replacing(pattern, by: content, text, range)
        }
    }

    /// The text with every occurrence of `pattern` replaced, from the left; nil if there is none.
    static func replacing(
        _ pattern: [UInt8], by content: [UInt8], _ text: UnsafePointer<UInt8>, _ range: Range<Int>
    ) -> [UInt8]? {
        guard let first = pattern.first, pattern.count <= range.count else { return nil }
        if pattern.count == 1 { return replacing(first, by: content, text, range) }
        var result: [UInt8] = []
        var copied = range.lowerBound
        var place = range.lowerBound
        let last = range.upperBound - pattern.count
        pattern.withUnsafeBufferPointer { pattern in
            while place <= last {
                guard text[place] == first, (1..<pattern.count).allSatisfy({ text[place + $0] == pattern[$0] }) else {
                    place &+= 1
                    continue
                }
                if copied == range.lowerBound, result.isEmpty { result.reserveCapacity(range.count * 3 / 2 + 64) }
                result.append(contentsOf: UnsafeBufferPointer(start: text + copied, count: place - copied))
                result.append(contentsOf: content)
                place += pattern.count
                copied = place
            }
        }
        if copied == range.lowerBound { return nil }
        result.append(contentsOf: UnsafeBufferPointer(start: text + copied, count: range.upperBound - copied))
        return result
    }

    /// As ``replacing(_:by:_:_:)`` of one byte, which is how spaces become marks: counted first, so that it is one pass.
    private static func replacing(
        _ byte: UInt8, by content: [UInt8], _ text: UnsafePointer<UInt8>, _ range: Range<Int>
    ) -> [UInt8]? {
        var found = 0
        for place in range where text[place] == byte { found &+= 1 }
        if found == 0 { return nil }
        let size = range.count + found * (content.count - 1)
        return content.withUnsafeBufferPointer { content in
            [UInt8](unsafeUninitializedCapacity: size) { result, count in
                count = size
                guard var next = result.baseAddress else { return }
                for place in range {
                    guard text[place] == byte else {
                        next.pointee = text[place]
                        next += 1
                        continue
                    }
                    for offset in 0..<content.count { next[offset] = content[offset] }
                    next += content.count
                }
            }
        }
    }
}

extension [Normalizer] {
    /// The text after all of them, or nil if nothing changes.
    func normalized(_ text: UnsafePointer<UInt8>, _ range: Range<Int>) -> [UInt8]? {
        var changed: [UInt8]?
        for normalizer in self {
            if let current = changed {
                let next = current.withUnsafeBufferPointer { buffer -> [UInt8]? in
                    guard let start = buffer.baseAddress else { return nil }
                    return normalizer.normalized(start, 0..<buffer.count)
                }
                if let next { changed = next }
            } else {
                changed = normalizer.normalized(text, range)
            }
        }
        return changed
    }
}
