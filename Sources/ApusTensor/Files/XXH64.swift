/// The 64-bit xxHash with seed 0, computed piece by piece.
///
/// Chosen for its speed (as fast as the reference C code, far above a software SHA-256) and because
/// `xxhsum -H1` checks the same number by hand. It guards against accidents (a flipped bit or a lost tail goes unseen
/// with probability 2^-64; the manifest also holds the size), not against someone who forges a file.
///
/// Format: xxHash specification, section "XXH64 algorithm description".
public struct XXH64: Sendable {
    private static let prime1: UInt64 = 0x9E37_79B1_85EB_CA87
    private static let prime2: UInt64 = 0xC2B2_AE3D_27D4_EB4F
    private static let prime3: UInt64 = 0x1656_67B1_9E37_79F9
    private static let prime4: UInt64 = 0x85EB_CA77_C2B2_AE63
    private static let prime5: UInt64 = 0x27D4_EB2F_1656_67C5
    private static let stripe = 32

    private var lane0: UInt64 = prime1 &+ prime2
    private var lane1: UInt64 = prime2
    private var lane2: UInt64 = 0
    private var lane3: UInt64 = 0 &- prime1
    private var pending: [UInt8] = []
    private var total: UInt64 = 0

    /// The state before the first byte.
    public init() {}

    /// The checksum of one buffer.
    public static func checksum(_ bytes: UnsafeRawBufferPointer) -> UInt64 {
        var hash = XXH64()
        hash.update(bytes)
        return hash.value
    }

    /// Adds bytes; how they are cut into calls does not change the value.
    public mutating func update(_ bytes: UnsafeRawBufferPointer) {
        total &+= UInt64(bytes.count)
        var rest = bytes[...]
        if !pending.isEmpty {
            let head = rest.prefix(Self.stripe - pending.count)
            pending.append(contentsOf: head)
            rest = rest.dropFirst(head.count)
            if pending.count < Self.stripe { return }
            let full = pending
            full.withUnsafeBytes { consumeStripes($0) }
            pending.removeAll(keepingCapacity: true)
        }
        let whole = rest.count / Self.stripe * Self.stripe
        consumeStripes(UnsafeRawBufferPointer(rebasing: rest.prefix(whole)))
        pending.append(contentsOf: rest.dropFirst(whole))
    }

    /// The checksum of everything added so far.
    public var value: UInt64 {
        var hash = total < UInt64(Self.stripe) ? Self.prime5 : mergedLanes
        hash &+= total
        pending.withUnsafeBytes { tail in
            var at = 0
            while at + 8 <= tail.count {
                let word = UInt64(littleEndian: tail.loadUnaligned(fromByteOffset: at, as: UInt64.self))
                hash = rotate(hash ^ Self.mix(0, word), 27) &* Self.prime1 &+ Self.prime4
                at += 8
            }
            if at + 4 <= tail.count {
                let word = UInt64(UInt32(littleEndian: tail.loadUnaligned(fromByteOffset: at, as: UInt32.self)))
                hash = rotate(hash ^ (word &* Self.prime1), 23) &* Self.prime2 &+ Self.prime3
                at += 4
            }
            while at < tail.count {
                hash = rotate(hash ^ (UInt64(tail[at]) &* Self.prime5), 11) &* Self.prime1
                at += 1
            }
        }
        hash = (hash ^ (hash >> 33)) &* Self.prime2
        hash = (hash ^ (hash >> 29)) &* Self.prime3
        return hash ^ (hash >> 32)
    }

    private mutating func consumeStripes(_ bytes: UnsafeRawBufferPointer) {
        // Locals: the compiler keeps the four lanes in registers, which it does not do for properties.
        var (a, b, c, d) = (lane0, lane1, lane2, lane3)
        for at in stride(from: 0, to: bytes.count, by: Self.stripe) {
            a = Self.mix(a, UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: at, as: UInt64.self)))
            b = Self.mix(b, UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: at + 8, as: UInt64.self)))
            c = Self.mix(c, UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: at + 16, as: UInt64.self)))
            d = Self.mix(d, UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: at + 24, as: UInt64.self)))
        }
        (lane0, lane1, lane2, lane3) = (a, b, c, d)
    }

    private static func mix(_ lane: UInt64, _ word: UInt64) -> UInt64 {
        rotate(lane &+ word &* prime2, 31) &* prime1
    }

    private var mergedLanes: UInt64 {
        var hash = rotate(lane0, 1) &+ rotate(lane1, 7) &+ rotate(lane2, 12) &+ rotate(lane3, 18)
        for lane in [lane0, lane1, lane2, lane3] {
            hash = (hash ^ Self.mix(0, lane)) &* Self.prime1 &+ Self.prime4
        }
        return hash
    }

    /// Sixteen lower-case hexadecimal digits, most significant first.
    public static func hex(_ checksum: UInt64) -> String {
        let digits = String(checksum, radix: 16)
        return String(repeating: "0", count: 16 - digits.count) + digits
    }
}

private func rotate(_ word: UInt64, _ count: UInt64) -> UInt64 { word << count | word >> (64 - count) }
