/// One scalar out of UTF-8 (Unicode 15, table 3-7, "Well-formed UTF-8 byte sequences").
enum UTF8Scalar {
    /// Stands for a byte that begins no scalar.
    static let invalid: UInt32 = .max

    /// The scalar at `place` and its bytes; ``invalid`` and 1 where there is none.
    @inline(__always)
    static func decode(_ text: UnsafePointer<UInt8>, _ place: Int, _ end: Int) -> (scalar: UInt32, length: Int) {
        let lead = text[place]
        if lead < 0x80 { return (UInt32(lead), 1) }
        let left = end - place
        guard lead >= 0xC2, left >= 2 else { return (invalid, 1) }
        let second = text[place + 1]
        guard second & 0xC0 == 0x80 else { return (invalid, 1) }
        if lead < 0xE0 { return (UInt32(lead & 0x1F) << 6 | UInt32(second & 0x3F), 2) }
        guard left >= 3, text[place + 2] & 0xC0 == 0x80 else { return (invalid, 1) }
        let third = UInt32(text[place + 2] & 0x3F)
        if lead < 0xF0 {
            let scalar = UInt32(lead & 0x0F) << 12 | UInt32(second & 0x3F) << 6 | third
            return scalar < 0x800 || scalar & 0xF800 == 0xD800 ? (invalid, 1) : (scalar, 3)
        }
        guard lead < 0xF5, left >= 4, text[place + 3] & 0xC0 == 0x80 else { return (invalid, 1) }
        let high = UInt32(lead & 0x07) << 18 | UInt32(second & 0x3F) << 12
        let scalar = high | third << 6 | UInt32(text[place + 3] & 0x3F)
        return scalar < 0x1_0000 || scalar > 0x10_FFFF ? (invalid, 1) : (scalar, 4)
    }

    /// Where the scalar before `place` begins, and what it is.
    static func before(_ text: UnsafePointer<UInt8>, _ place: Int, from start: Int) -> (scalar: UInt32, start: Int) {
        for length in 1...4 where place - length >= start {
            let (scalar, found) = decode(text, place - length, place)
            if scalar != invalid, found == length { return (scalar, place - length) }
        }
        return (invalid, place - 1)
    }

    /// Appends a scalar's bytes.
    static func append(_ scalar: UInt32, to bytes: inout [UInt8]) {
        switch scalar {
        case 0..<0x80: bytes.append(UInt8(scalar))
        case 0x80..<0x800: bytes += [0xC0 | UInt8(scalar >> 6), 0x80 | UInt8(scalar & 0x3F)]
        case 0x800..<0x1_0000:
            bytes += [0xE0 | UInt8(scalar >> 12), 0x80 | UInt8(scalar >> 6 & 0x3F), 0x80 | UInt8(scalar & 0x3F)]
        default:
            bytes += [0xF0 | UInt8(scalar >> 18), 0x80 | UInt8(scalar >> 12 & 0x3F)]
            bytes += [0x80 | UInt8(scalar >> 6 & 0x3F), 0x80 | UInt8(scalar & 0x3F)]
        }
    }
}
