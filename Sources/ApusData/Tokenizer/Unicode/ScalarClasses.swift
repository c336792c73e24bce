/// What one Unicode scalar is to the patterns that cut text into pieces.
struct ScalarClass {
    static let letter: UInt8 = 1
    static let number: UInt8 = 2
    static let space: UInt8 = 4
    /// Letter, number or space: what `[^\s\p{L}\p{N}]` leaves out.
    static let named: UInt8 = letter | number | space
    static let digit: UInt8 = 8
    static let word: UInt8 = 16
    /// Composition may change it, or join it to what stands before it.
    static let unstable: UInt8 = 32
}

/// The classes of all scalars, as a table of blocks of 128, equal ones kept once.
final class ScalarClasses: Sendable {
    /// Built at first use, in about ten milliseconds.
    static let shared = ScalarClasses()

    private let blockOf: ReadOnlyBuffer<UInt16>
    private let blocks: ReadOnlyBuffer<UInt8>

    private init() {
        var flags = [UInt8](repeating: 0, count: 0x11_0000)
        let kinds: [([UInt32], UInt8)] = [
            (ScalarRanges.letters, ScalarClass.letter), (ScalarRanges.numbers, ScalarClass.number),
            (ScalarRanges.spaces, ScalarClass.space), (ScalarRanges.digits, ScalarClass.digit),
            (ScalarRanges.words, ScalarClass.word),
        ]
        for (runs, flag) in kinds {
            var place = 0
            for index in stride(from: 0, to: runs.count, by: 2) {
                place += Int(runs[index])
                for scalar in place..<place + Int(runs[index + 1]) { flags[scalar] |= flag }
                place += Int(runs[index + 1])
            }
        }
        for scalar in Composition.shared.unstableScalars { flags[Int(scalar)] |= ScalarClass.unstable }

        var numbers: [ArraySlice<UInt8>: UInt16] = [:]
        var index: [UInt16] = []
        var kept: [UInt8] = []
        for start in stride(from: 0, to: flags.count, by: 128) {
            let block = flags[start..<start + 128]
            if let number = numbers[block] {
                index.append(number)
            } else {
                numbers[block] = UInt16(numbers.count)
                index.append(UInt16(numbers.count - 1))
                kept += block
            }
        }
        blockOf = ReadOnlyBuffer(index)
        blocks = ReadOnlyBuffer(kept)
    }

    /// A view for loops, valid as long as this object.
    var view: View { View(blockOf: blockOf.base, blocks: blocks.base) }

    /// The table as two addresses.
    struct View {
        fileprivate let blockOf: UnsafePointer<UInt16>
        fileprivate let blocks: UnsafePointer<UInt8>

        /// The class of a scalar.
        @inline(__always) subscript(scalar: UInt32) -> UInt8 {
            blocks[Int(blockOf[Int(scalar >> 7)]) << 7 | Int(scalar & 127)]
        }

        /// The class and length of what stands at `place`; a byte that is no text has no class and length 1.
        @inline(__always)
        func at(_ place: Int, in text: UnsafePointer<UInt8>, end: Int) -> (class: UInt8, length: Int) {
            let byte = text[place]
            if byte < 0x80 { return (blocks[Int(blockOf[0]) << 7 | Int(byte)], 1) }
            return beyondASCII(place, text, end)
        }

        private func beyondASCII(
            _ place: Int, _ text: UnsafePointer<UInt8>, _ end: Int
        ) -> (class: UInt8, length: Int) {
            let (scalar, length) = UTF8Scalar.decode(text, place, end)
            return scalar == UTF8Scalar.invalid ? (0, 1) : (self[scalar], length)
        }
    }
}
