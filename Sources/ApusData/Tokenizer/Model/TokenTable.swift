/// Token texts by id and ids by text: all texts in one run of bytes, and a hash table of ids.
///
/// Ids may have gaps; a text has one id.
struct TokenTable: Sendable {
    /// Ids are below this; tables grow with the largest id, so a file may not ask for more.
    static let idLimit = 1 << 22

    private var bytes: [UInt8] = []
    /// For each id the start of its text and its length; -1 where there is no token.
    private var starts: [Int32] = []
    private var lengths: [Int32] = []
    /// Ids plus one, at the place of their text's hash or behind it; a power of two of them, at most half full.
    private var slots: [UInt32] = []
    /// How many tokens there are.
    private(set) var count = 0

    init(capacity: Int = 0) {
        slots = [UInt32](repeating: 0, count: TokenTable.slotCount(capacity))
        starts.reserveCapacity(capacity)
        lengths.reserveCapacity(capacity)
    }

    private static func slotCount(_ tokens: Int) -> Int {
        var slots = 64
        while slots < 2 * tokens { slots *= 2 }
        return slots
    }

    /// One more than the highest id.
    var idEnd: Int { starts.count }

    /// Gives `text` the id `id`.
    ///
    /// - Returns: whether neither was there before; nothing is changed otherwise.
    mutating func insert(_ text: some Collection<UInt8>, id: Int) -> Bool {
        let start = bytes.count
        bytes.append(contentsOf: text)
        let length = bytes.count - start
        let isFree = id >= starts.count || starts[id] < 0
        let slot = isFree ? freeSlot(start, length) : nil
        guard let slot else {
            bytes.removeLast(length)
            return false
        }
        if starts.count <= id {
            // At once: one by one, an id far beyond the last would take up to three times the room.
            let gap = id + 1 - starts.count
            starts.append(contentsOf: repeatElement(-1, count: gap))
            lengths.append(contentsOf: repeatElement(0, count: gap))
        }
        starts[id] = Int32(start)
        lengths[id] = Int32(length)
        slots[slot] = UInt32(id) + 1
        count += 1
        if 2 * count > slots.count { grow() }
        return true
    }

    /// The text of `id`, as bytes of UTF-8.
    subscript(id: Int) -> ArraySlice<UInt8>? {
        guard id >= 0, id < starts.count, starts[id] >= 0 else { return nil }
        return bytes[Int(starts[id])..<Int(starts[id] + lengths[id])]
    }

    /// Whether `id` has a token.
    func contains(_ id: Int) -> Bool { id >= 0 && id < starts.count && starts[id] >= 0 }

    /// The id of a text.
    func id(of text: UnsafeBufferPointer<UInt8>) -> Int? {
        guard let start = text.baseAddress else { return id(of: []) }
        return find(start, text.count)
    }

    /// The id of a text.
    func id(of text: [UInt8]) -> Int? {
        text.withUnsafeBufferPointer { text in
            guard let start = text.baseAddress else {
                return withUnsafePointer(to: UInt8(0)) { find($0, 0) }
            }
            return find(start, text.count)
        }
    }

    /// The id of a text.
    func id(of text: String) -> Int? { id(of: Array(text.utf8)) }

    private func find(_ text: UnsafePointer<UInt8>, _ length: Int) -> Int? {
        bytes.withUnsafeBufferPointer { bytes in
            slots.withUnsafeBufferPointer { slots in
                var slot = Int(truncatingIfNeeded: ByteHash.of(text, length)) & (slots.count - 1)
                while slots[slot] != 0 {
                    let id = Int(slots[slot]) - 1
                    if Int(lengths[id]) == length, equal(text, bytes, Int(starts[id]), length) { return id }
                    slot = (slot + 1) & (slots.count - 1)
                }
                return nil
            }
        }
    }

    private func equal(
        _ text: UnsafePointer<UInt8>, _ bytes: UnsafeBufferPointer<UInt8>, _ start: Int, _ length: Int
    ) -> Bool {
        for place in 0..<length where text[place] != bytes[start + place] { return false }
        return true
    }

    /// Where a text goes that lies in `bytes`; nil if it is there.
    private func freeSlot(_ start: Int, _ length: Int) -> Int? {
        bytes.withUnsafeBufferPointer { bytes in
            let hash: UInt64
            if let base = bytes.baseAddress {
                hash = ByteHash.of(base + start, length)
            } else {
                hash = withUnsafePointer(to: UInt8(0)) { ByteHash.of($0, 0) }
            }
            var slot = Int(truncatingIfNeeded: hash) & (slots.count - 1)
            while slots[slot] != 0 {
                let id = Int(slots[slot]) - 1
                if Int(lengths[id]) == length,
                    (0..<length).allSatisfy({ bytes[start + $0] == bytes[Int(starts[id]) + $0] })
                {
                    return nil
                }
                slot = (slot + 1) & (slots.count - 1)
            }
            return slot
        }
    }

    private mutating func grow() {
        slots = [UInt32](repeating: 0, count: 2 * slots.count)
        for id in starts.indices where starts[id] >= 0 {
            if let slot = freeSlot(Int(starts[id]), Int(lengths[id])) { slots[slot] = UInt32(id) + 1 }
        }
    }
}
