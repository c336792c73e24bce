/// What kernels are chosen by: the instructions that a device has, and the shared memory that a block gets.
///
/// All choices ask a backend's limits, never the device, so that a backend may choose as another device would.
public struct KernelLimits: Equatable, Sendable {
    /// Compute capability; only 9.0 has the kernels that end in `_sm90a`.
    public let capability: LibraryVersion
    /// Bytes of shared memory that one block may ask for.
    public let sharedMemory: Int

    /// The least that any served device has: compute capability 8.0, and the 99 KB of 8.6, 8.9 and 12.0. The kernels
    /// chosen by it run on all of them.
    public static let portable = KernelLimits(capability: CUDADevice.oldestCapability, sharedMemory: 99 << 10)

    /// What a device has.
    public init(of device: CUDADevice) {
        self.init(capability: device.capability, sharedMemory: device.sharedMemory)
    }

    init(capability: LibraryVersion, sharedMemory: Int) {
        self.capability = capability
        self.sharedMemory = sharedMemory
    }

    /// Whether the kernels that end in `_sm90a` may be chosen.
    var hasHopperKernels: Bool { capability == LibraryVersion(9, 0) }
}

/// What no kernel takes.
public enum KernelLimitError: Error, Equatable, Sendable {
    /// A launch that asks for more shared memory than a block gets.
    case sharedMemory(kernel: String, bytes: Int, most: Int)
    /// Attention with wider heads than there are kernels for.
    case headWidth(Int, most: Int)
    /// Attention in which more query heads share a key head than a block has rows for.
    case headsPerKeyHead(Int, most: Int)
}

extension KernelLimitError: CustomStringConvertible {
    /// One line: what was asked for, and what would work.
    public var description: String {
        switch self {
        case .sharedMemory(let kernel, let bytes, let most):
            "kernel \(kernel) needs \(bytes) bytes of shared memory and a block gets \(most): its rows must be narrower"
        case .headWidth(let width, let most):
            "attention heads \(width) wide: on a GPU they are at most \(most) wide"
        case .headsPerKeyHead(let count, let most):
            "\(count) attention heads share a key head: at this head width and type at most \(most) may share one on this GPU"
        }
    }
}
