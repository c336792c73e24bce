/// Where an allocator's blocks come from: the memory of one device.
public protocol MemorySource: Sendable {
    /// Whose memory it is.
    var device: Device { get }
    /// The address of `size` bytes, aligned to 64 at least, or `nil` when there is no room.
    ///
    /// - Throws: ``TensorError/deviceFailed(_:)`` when it is not room that is missing.
    func allocate(_ size: Int) throws(TensorError) -> UInt?
    /// Gives a block of ``allocate(_:)`` back, once the device is done with it.
    func free(_ address: UInt, size: Int)
}

/// The memory of the host.
struct HostMemory: MemorySource {
    let device = Device.cpu
    func allocate(_ size: Int) -> UInt? { SystemMemory.allocate(size) }
    func free(_ address: UInt, size: Int) { SystemMemory.free(address, size: size) }
}
