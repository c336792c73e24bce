import ApusTensor

/// Numbers the calls of one rank on one communicator, and remembers what they were in one number, by which messages of
/// ranks that made other calls never meet.
struct CallNumbering {
    /// A call's place on its channel, and all calls of the channel up to it as one number.
    struct Place {
        let sequence: Int
        let history: UInt64
    }

    private var places: [Channel.Pair?: Place] = [:]
    private var splits: [String: Int] = [:]

    /// The place of the next call.
    mutating func next(_ pair: Channel.Pair?, _ signature: OperationSignature) -> Place {
        let last = places[pair]
        let place = Place(
            sequence: (last?.sequence ?? -1) + 1,
            history: mixed(last?.history ?? 0x243F_6A88_85A3_08D3, signature.code(isPair: pair != nil)))
        places[pair] = place
        return place
    }

    /// How often a split of this name has been asked for, this time included.
    mutating func occurrence(of split: String) -> Int {
        splits[split, default: 0] += 1
        return splits[split, default: 1]
    }
}

/// The tag that a call's messages carry: which of the operations under way they belong to, and, in the bits that are
/// left, the history of the channel.
struct MessageTag {
    /// Bits of the largest tag that the library takes; at least 15 by the standard, 23 and more in practice.
    let bits: Int

    /// Calls of a channel that may be under way at once: their tags differ by number alone.
    static let window = 64

    /// The tag of a call of the channel between two ranks, or of all of them.
    func tag(of place: CallNumbering.Place, isPair: Bool) -> Int32 {
        let history = place.history >> 17 & (1 << UInt64(bits - 7) - 1)
        let number = UInt64(place.sequence % MessageTag.window)
        return Int32(truncatingIfNeeded: history << 7 | number << 1 | (isPair ? 1 : 0))
    }
}

/// Both numbers in one, the same in every process (`Hasher` is not).
func mixed(_ first: UInt64, _ second: UInt64) -> UInt64 {
    var value = (first ^ second) &* 0x9E37_79B9_7F4A_7C15
    value = (value ^ value >> 32) &* 0xD6E8_FEB8_6659_FD93
    return value ^ value >> 29
}

extension OperationSignature {
    /// This signature as a number; both sides of a message between two ranks have the same.
    fileprivate func code(isPair: Bool) -> UInt64 {
        let name = isPair ? 0 : (kind.rawValue + (label ?? "")).utf8.reduce(0) { mixed($0, UInt64($1)) }
        return [elements ?? -1, root ?? -1, Int(dtype?.rawValue ?? 99), reduction == .max ? 1 : 0]
            .reduce(name) { mixed($0, UInt64(bitPattern: Int64($1))) }
    }
}
