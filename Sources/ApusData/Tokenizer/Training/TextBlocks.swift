import Glibc

/// A text file in blocks that may be cut into words one by one.
///
/// Blocks end behind a line break between two visible ASCII characters, which no pattern's word reaches over; where no
/// such break comes, a block grows until one does.
struct TextBlocks: ~Copyable {
    /// Bytes that are read at a time.
    static let blockBytes = 1 << 22

    private let path: String
    private let descriptor: Int32
    /// Read and not yet given out.
    private var rest: [UInt8] = []
    private var isAtEnd = false

    /// Opens a file.
    init(path: String) throws(TokenizerError) {
        self.path = path
        descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw .unreadable(path: path, reason: String(cString: strerror(errno))) }
    }

    deinit { if descriptor >= 0 { close(descriptor) } }

    /// The next block; nil at the end.
    mutating func next() throws(TokenizerError) -> [UInt8]? {
        var searched = 1
        while true {
            if let cut = TextBlocks.lastCut(rest, from: searched) {
                let block = Array(rest[..<cut])
                rest.removeSubrange(..<cut)
                return block
            }
            if isAtEnd {
                let block = rest
                rest = []
                return block.isEmpty ? nil : block
            }
            searched = max(1, rest.count - 2)
            try readMore()
        }
    }

    private mutating func readMore() throws(TokenizerError) {
        let start = rest.count
        var got = 0
        rest.append(contentsOf: repeatElement(0, count: TextBlocks.blockBytes))
        while got < TextBlocks.blockBytes {
            let part = rest.withUnsafeMutableBytes {
                read(descriptor, $0.baseAddress?.advanced(by: start + got), TextBlocks.blockBytes - got)
            }
            if part < 0 {
                if errno == EINTR { continue }
                throw .unreadable(path: path, reason: String(cString: strerror(errno)))
            }
            if part == 0 { break }
            got += part
        }
        isAtEnd = got < TextBlocks.blockBytes
        rest.removeLast(TextBlocks.blockBytes - got)
    }

    /// Behind the last line break of `text`, not before `start`, that may be a block's end.
    private static func lastCut(_ text: [UInt8], from start: Int) -> Int? {
        let visible: ClosedRange<UInt8> = 0x21...0x7E
        var place = text.count - 2
        while place >= start {
            if text[place] == 0x0A, visible.contains(text[place - 1]), visible.contains(text[place + 1]) {
                return place + 1
            }
            place -= 1
        }
        return nil
    }
}
