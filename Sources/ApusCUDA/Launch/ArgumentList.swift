import ApusTensor

/// What a launch passes to a kernel: words of eight bytes, and at which of them each argument begins; held inline, for a
/// launch must not cost an allocation.
struct ArgumentList {
    private var words = [160 of UInt64](repeating: 0)
    private var starts = [48 of UInt8](repeating: 0)
    private var wordCount = 0
    private var count = 0
    /// A structure too long to be held inline, of which a launch may have one, and which argument it is.
    private var long: [UInt64] = []
    private var longPlace = 0
    /// Work elsewhere that the launch must wait for.
    private(set) var pending: [Event] = []

    /// An address, a 64-bit integer, or a real in the low bytes.
    @inline(__always)
    mutating func append(_ word: UInt64) {
        starts[count] = UInt8(truncatingIfNeeded: wordCount)
        words[wordCount] = word
        count += 1
        wordCount += 1
    }

    /// The address of a tensor, once the work that completes it is over.
    @inline(__always)
    mutating func append(_ tensor: borrowing Tensor) {
        append(tensor.deviceAddress)
        if let ready = tensor.ready { pending.append(ready) }
    }

    /// A structure that is passed by value, perhaps one by which the kernel finds a tensor.
    mutating func append(_ structure: [UInt64], of tensor: Tensor? = nil) {
        if let ready = tensor?.ready { pending.append(ready) }
        starts[count] = UInt8(truncatingIfNeeded: wordCount)
        count += 1
        guard structure.count <= 32 else {
            precondition(long.isEmpty, "a launch has one long structure")
            (long, longPlace) = (structure, count - 1)
            return
        }
        for word in structure {
            words[wordCount] = word
            wordCount += 1
        }
    }

    /// Calls `body` with where each argument is, as the driver takes them.
    @inline(__always)
    mutating func withPointers<Result>(_ body: (UnsafeMutablePointer<UnsafeMutableRawPointer?>?) -> Result) -> Result {
        let (starts, count, longPlace) = (starts, count, longPlace)
        return withUnsafeMutableBytes(of: &words) { words in
            long.withUnsafeMutableBytes { long in
                withUnsafeTemporaryAllocation(of: UnsafeMutableRawPointer?.self, capacity: max(count, 1)) { pointers in
                    for place in 0..<count {
                        let word = words.baseAddress.map { $0 + Int(starts[place]) * 8 }
                        pointers.initializeElement(at: place, to: word)
                    }
                    if !long.isEmpty { pointers[longPlace] = long.baseAddress }
                    return body(pointers.baseAddress)
                }
            }
        }
    }
}
