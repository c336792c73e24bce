import ApusTensor

/// A pseudo-random permutation of `0 ..< count` that is computed one element at a time.
///
/// A balanced Feistel network over the smallest even number of bits that holds `count`, with Philox as its round
/// function; results outside of the range walk on until they are inside (Black and Rogaway 2002, "cycle walking"). No
/// table: a corpus of any size is shuffled in no memory.
struct Permutation {
    private let count: UInt64
    private let halfBits: UInt64
    private let stream: RandomStream
    private static let rounds = 6

    init(count: Int, stream: RandomStream) {
        precondition(count > 0)
        self.count = UInt64(count)
        self.stream = stream
        let bits = max(2, UInt64.bitWidth - (UInt64(count) - 1).leadingZeroBitCount)
        halfBits = UInt64((bits + 1) / 2)
    }

    func callAsFunction(_ index: Int) -> Int {
        var value = UInt64(index)
        repeat { value = shuffled(value) } while value >= count
        return Int(value)
    }

    private func shuffled(_ value: UInt64) -> UInt64 {
        let mask = (1 as UInt64) << halfBits - 1
        var (left, right) = (value >> halfBits, value & mask)
        for round in 0..<Permutation.rounds {
            let word = UInt64(stream.word(at: UInt64(round) << 40 | right))
            (left, right) = (right, (left ^ word) & mask)
        }
        return left << halfBits | right
    }
}
