/// Ids of words seen lately, so that most words are looked up and not merged again.
///
/// Direct-mapped with one cache line an entry: a word of up to 32 bytes and up to 7 ids. Memory is bounded and a
/// collision replaces, so no text makes it grow.
struct WordCache: ~Copyable {
    /// Longest word that is kept, in bytes.
    static let longestWord = 32
    /// Most ids that are kept of a word.
    static let mostIDs = 7
    private static let entryBytes = 64
    private static let entryBits = 15
    // A line: the word, padded with zeros; its ids; its length, and its number of ids.
    private static let idOffset = 32
    private static let lengthOffset = 60
    private static let countOffset = 61

    private let memory: UnsafeMutableRawPointer

    init() {
        let bytes = WordCache.entryBytes << WordCache.entryBits
        memory = .allocate(byteCount: bytes, alignment: WordCache.entryBytes)
        memory.initializeMemory(as: UInt8.self, repeating: 0, count: bytes)
    }

    deinit { memory.deallocate() }

    /// A word's bytes in four registers, zeros behind its end.
    struct Key {
        let a: UInt64
        let b: UInt64
        let c: UInt64
        let d: UInt64

        /// - Parameter readable: bytes that may be read from `word` on.
        @inline(__always)
        init(_ word: UnsafePointer<UInt8>, _ length: Int, readable: Int) {
            if readable >= WordCache.longestWord {
                let raw = UnsafeRawPointer(word)
                a = raw.loadUnaligned(as: UInt64.self) & Key.mask(length)
                b = length <= 8 ? 0 : raw.loadUnaligned(fromByteOffset: 8, as: UInt64.self) & Key.mask(length - 8)
                c = length <= 16 ? 0 : raw.loadUnaligned(fromByteOffset: 16, as: UInt64.self) & Key.mask(length - 16)
                d = length <= 24 ? 0 : raw.loadUnaligned(fromByteOffset: 24, as: UInt64.self) & Key.mask(length - 24)
            } else {
                a = Key.slow(word, 0, length)
                b = Key.slow(word, 8, length)
                c = Key.slow(word, 16, length)
                d = Key.slow(word, 24, length)
            }
        }

        @inline(__always)
        private static func mask(_ length: Int) -> UInt64 {
            length >= 8 ? .max : (1 &<< UInt64(truncatingIfNeeded: 8 &* length)) &- 1
        }

        private static func slow(_ word: UnsafePointer<UInt8>, _ start: Int, _ length: Int) -> UInt64 {
            var value: UInt64 = 0
            for place in start..<max(start, min(length, start + 8)) {
                value |= UInt64(word[place]) << UInt64(8 * (place - start))
            }
            return value
        }

        @inline(__always) fileprivate var slot: Int {
            var hash = ByteHash.mix(0, a)
            if b | c | d != 0 { hash = ByteHash.mix(ByteHash.mix(ByteHash.mix(hash, b), c), d) }
            return Int(truncatingIfNeeded: hash >> UInt64(64 - WordCache.entryBits)) &* WordCache.entryBytes
        }
    }

    /// The entry of a word; nil if it is not there.
    @inline(__always)
    func find(_ key: Key, length: Int) -> (ids: UnsafePointer<Int32>, count: Int)? {
        let line = memory + key.slot
        let words = line.assumingMemoryBound(to: UInt64.self)
        guard words[0] == key.a, words[1] == key.b, words[2] == key.c, words[3] == key.d,
            line.load(fromByteOffset: WordCache.lengthOffset, as: UInt8.self) == UInt8(truncatingIfNeeded: length)
        else { return nil }
        let ids = UnsafePointer((line + WordCache.idOffset).assumingMemoryBound(to: Int32.self))
        return (ids, Int(line.load(fromByteOffset: WordCache.countOffset, as: UInt8.self)))
    }

    /// Keeps a word's ids, if there are few enough.
    func insert(_ key: Key, length: Int, _ ids: UnsafePointer<Int32>, count: Int) {
        guard count <= WordCache.mostIDs else { return }
        let line = memory + key.slot
        let words = line.assumingMemoryBound(to: UInt64.self)
        (words[0], words[1], words[2], words[3]) = (key.a, key.b, key.c, key.d)
        let kept = (line + WordCache.idOffset).assumingMemoryBound(to: Int32.self)
        for place in 0..<count { kept[place] = ids[place] }
        line.storeBytes(of: UInt8(truncatingIfNeeded: length), toByteOffset: WordCache.lengthOffset, as: UInt8.self)
        line.storeBytes(of: UInt8(truncatingIfNeeded: count), toByteOffset: WordCache.countOffset, as: UInt8.self)
    }
}
