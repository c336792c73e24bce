/// How normalised text becomes the words that are encoded one by one.
struct PreTokenizer: Sendable, Equatable {
    /// Spaces become a mark that begins words.
    struct Metaspace: Sendable, Equatable {
        /// When the mark is put before text that does not begin with it.
        enum Prepend: String, Sendable, CaseIterable {
            case always
            case first
            case never
        }

        var mark: UInt32 = 0x2581
        var prepend = Prepend.always
        /// Text is cut before each mark.
        var cuts = true
    }

    /// What comes first, in order: each cuts the pieces of the one before.
    var splitters: [Splitter] = []
    /// Words are bytes in the byte alphabet.
    var isByteLevel = false
    /// Text that does not begin with a space gets one, before anything is cut.
    var addsPrefixSpace = false
    /// Instead of a byte level.
    var metaspace: Metaspace?
}
