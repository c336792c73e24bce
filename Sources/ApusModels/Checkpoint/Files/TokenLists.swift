public import ApusTensor

/// A file of token ids: a JSON list of lists of whole numbers, `[[1, 2, 3], [4, 5]]`.
///
/// Format: RFC 8259.
public struct TokenLists: Sendable, Equatable {
    /// The lists, in the order of the file; a list may be empty.
    public let lists: [[Int32]]

    /// Most lists, and most ids of all lists together, that a file may hold.
    static let mostIds = 1 << 28

    /// Reads a file whole.
    ///
    /// - Parameter vocabulary: ids are below this.
    /// - Throws: what `FileContents` throws; ``FileError/malformed(path:offset:reason:)`` with the byte at which
    ///   the text stops being such a list, or at which an id stands that the vocabulary does not have.
    public init(path: String, vocabulary: Int) throws(FileError) {
        lists = try FileContents(path: path, atMost: .max).withUnsafeBytes { text throws(FileError) in
            do throws(JSONScanner.Fault) {
                return try TokenLists.parse(text, vocabulary: vocabulary)
            } catch {
                throw .malformed(path: path, offset: error.offset, reason: "lists of token ids: \(error.reason)")
            }
        }
    }

    private static func parse(
        _ text: UnsafeRawBufferPointer, vocabulary: Int
    ) throws(JSONScanner.Fault) -> [[Int32]] {
        var scanner = JSONScanner(text)
        var lists: [[Int32]] = []
        var count = 0
        var outer = try scanner.beginArray()
        while try scanner.nextElement(in: &outer) {
            var list: [Int32] = []
            var inner = try scanner.beginArray()
            while try scanner.nextElement(in: &inner) {
                let id = try scanner.wholeNumber("a token id")
                guard id < vocabulary, let small = Int32(exactly: id) else {
                    throw scanner.fault(
                        "token \(id) at position \(list.count) of list \(lists.count) is outside the model's vocabulary: "
                            + "ids are 0 ... \(vocabulary - 1)")
                }
                list.append(small)
                count += 1
            }
            lists.append(list)
            count += 1
            if count > mostIds { throw scanner.fault("there are more than \(mostIds) ids; use several files") }
        }
        try scanner.end()
        if lists.isEmpty { throw scanner.fault("there is no list; write [[1, 2, 3], ...]") }
        return lists
    }
}
