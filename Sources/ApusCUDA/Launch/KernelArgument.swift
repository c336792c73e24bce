import ApusTensor

/// What a launch passes to a kernel: words of eight bytes, and at which of them each argument begins.
struct ArgumentList {
    private(set) var words: [UInt64] = []
    private(set) var starts: [Int] = []

    /// An address, a 64-bit integer, or a real in the low bytes.
    mutating func append(_ word: UInt64) {
        starts.append(words.count)
        words.append(word)
    }

    /// A structure that is passed by value.
    mutating func append(_ structure: some Sequence<UInt64>) {
        starts.append(words.count)
        words.append(contentsOf: structure)
    }
}

/// What a kernel takes.
protocol KernelArgument {
    /// Adds the argument.
    func append(to arguments: inout ArgumentList)
    /// Work elsewhere that the launch must wait for.
    var pending: Event? { get }
}

extension KernelArgument {
    var pending: Event? { nil }
}

extension Int: KernelArgument {
    func append(to arguments: inout ArgumentList) { arguments.append(UInt64(bitPattern: Int64(self))) }
}

extension UInt64: KernelArgument {
    func append(to arguments: inout ArgumentList) { arguments.append(self) }
}

extension Bool: KernelArgument {
    func append(to arguments: inout ArgumentList) { arguments.append(self ? 1 : 0) }
}

extension Float: KernelArgument {
    func append(to arguments: inout ArgumentList) { arguments.append(UInt64(bitPattern)) }
}

extension Double: KernelArgument {
    func append(to arguments: inout ArgumentList) { arguments.append(bitPattern) }
}

extension Tensor: KernelArgument {
    func append(to arguments: inout ArgumentList) { arguments.append(address) }
    var pending: Event? { ready }
}

/// A tensor that may be left out: address 0.
extension Optional: KernelArgument where Wrapped == Tensor {
    func append(to arguments: inout ArgumentList) { arguments.append(self?.address ?? 0) }
    var pending: Event? { self?.ready }
}

extension Tensor {
    /// The address of the first element on the device.
    var address: UInt64 {
        precondition(device != .cpu, "an op on a CUDA device got a tensor of the host")
        return UInt64(UInt(bitPattern: storage.pointer)) + UInt64(byteOffset)
    }
}
