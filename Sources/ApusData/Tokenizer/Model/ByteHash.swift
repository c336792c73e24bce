/// A hash of short byte strings, eight bytes at a time; for tables that live in this process alone.
enum ByteHash {
    private static let factor: UInt64 = 0x9E37_79B9_7F4A_7C15

    /// The hash of `count` bytes.
    @inline(__always)
    static func of(_ bytes: UnsafePointer<UInt8>, _ count: Int) -> UInt64 {
        var hash = UInt64(truncatingIfNeeded: count) &* factor
        var place = 0
        while count - place >= 8 {
            hash = mix(hash, UnsafeRawPointer(bytes + place).loadUnaligned(as: UInt64.self))
            place += 8
        }
        var tail: UInt64 = 0
        while place < count {
            tail = tail << 8 | UInt64(bytes[place])
            place += 1
        }
        return mix(hash, tail)
    }

    /// Folds eight more bytes into a hash.
    @inline(__always)
    static func mix(_ hash: UInt64, _ word: UInt64) -> UInt64 {
        let product = (hash ^ word) &* factor
        return product ^ product >> 29
    }
}
