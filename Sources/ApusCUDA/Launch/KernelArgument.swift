import ApusTensor

/// What a kernel takes.
protocol KernelArgument {
    /// Adds the argument, and what the launch must wait for because of it.
    func append(to arguments: inout ArgumentList)
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
    func append(to arguments: inout ArgumentList) { arguments.append(self) }
}

/// A tensor that may be left out: address 0.
extension Optional: KernelArgument where Wrapped == Tensor {
    func append(to arguments: inout ArgumentList) {
        if let self { arguments.append(self) } else { arguments.append(0) }
    }
}

extension Tensor {
    /// The address of the first element on the device.
    var address: UInt64 { deviceAddress }
}
