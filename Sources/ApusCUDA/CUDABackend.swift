public import ApusKernels
public import ApusTensor
import Synchronization

/// Ops on one CUDA device: cuBLASLt for dense products, cuDNN for attention where it can be driven
/// (``AttentionEngine``), our own kernels for the rest, all on one stream.
///
/// What is enqueued waits for nothing. The host waits in a download's reader, in ``ElementwiseOp/countNonFinite(_:)``, for
/// the room of very large uploads, and where a time is read; ``synchronizations`` counts every wait.
public final class CUDABackend: Backend {
    /// The device's memory that ops allocate from.
    public let allocator: CachingAllocator
    /// The stream that ops are enqueued on.
    public let stream: Stream
    /// The device.
    public let device: CUDADevice
    /// What kernels are chosen by.
    public let limits: KernelLimits
    /// Kernel files that were compiled when this was made; the others came from the cache on disk.
    public let compiledKernelFiles: Int

    /// See ``Backend/isBatchInvariant``.
    public let isBatchInvariant: Bool

    let queue: CUDAStream
    let kernels: KernelLibrary
    let products: ProductLibrary
    /// Host memory for copies.
    let pinned: CachingAllocator
    /// cuDNN's attention; `nil` where our own kernels do it all.
    let fusedAttention: FusedAttention?
    /// What the host knows of tensors of sequence boundaries.
    let equalLengths = EqualLengths()
    let constants = Mutex<[[Int32]: Tensor]>([:])
    /// What the stream records; `nil` while it runs what it is given.
    let recording = Mutex<Recording?>(nil)

    /// A backend on the device of an ordinal.
    ///
    /// - Parameters:
    ///   - memoryLimit: Most bytes of tensors that may be live; what the device has by default.
    ///   - batchInvariant: Trade speed for results that do not depend on the rest of the batch.
    ///   - deterministic: Trade speed for gradients of attention that are the same bits every time.
    ///   - limits: What kernels are chosen by; what the device has by default. It must have as much.
    /// - Throws: ``LibraryProblem`` where a library or the device is missing or too old; ``CUDAError``.
    public convenience init(
        ordinal: Int = 0, memoryLimit: Int? = nil, batchInvariant: Bool = false, deterministic: Bool = true,
        limits: KernelLimits? = nil
    ) throws {
        let driver = try CUDADriver.shared.get()
        let context = try CUDAContext(CUDADevice(ordinal, driver: driver), driver: driver)
        try self.init(
            context, products: ProductLibrary(context),
            kernels: KernelLibrary(
                context, compiler: KernelCompiler(for: driver.version), cache: .standard, files: KernelFile.all),
            fusedAttention: .asked(isDeterministic: deterministic), memoryLimit: memoryLimit,
            batchInvariant: batchInvariant, limits: limits)
    }

    init(
        _ context: CUDAContext, products: ProductLibrary, kernels: KernelLibrary, fusedAttention: FusedAttention? = nil,
        memoryLimit: Int? = nil, batchInvariant: Bool = false, limits: KernelLimits? = nil
    ) throws {
        self.limits = limits ?? KernelLimits(of: context.device)
        isBatchInvariant = batchInvariant
        self.fusedAttention = fusedAttention
        self.products = products
        self.kernels = kernels
        device = context.device
        compiledKernelFiles = kernels.compiledCount
        allocator = CachingAllocator(
            source: DeviceMemory(context: context), limit: memoryLimit ?? context.device.memory)
        pinned = CachingAllocator(source: PinnedMemory(context: context))
        queue = try CUDAStream(context)
        stream = Stream(device: .cuda(context.device.ordinal))
    }

    /// How often the host waited for the device since the backend was made. A steady training step adds nothing here.
    public var synchronizations: Int { queue.context.synchronizations }

    /// Why our own kernels computed attention that cuDNN was asked for, if it failed; its words.
    public var attentionProblem: String? { fusedAttention?.problem.map { "\($0)" } }

    /// Blocks until all ops are done.
    ///
    /// - Throws: ``CUDAError``, also for what an earlier op did wrong.
    public func synchronize() throws { try queue.synchronize() }

    public func wait(for event: Event) throws { try queue.wait(for: event) }

    /// Ops given from now on wait for the work that completes `tensor`.
    func wait(for tensor: Tensor) throws {
        if let ready = tensor.ready { try queue.wait(for: ready) }
    }

    /// Puts a kernel into the stream, behind the work that its tensors wait for.
    ///
    /// - Throws: ``KernelLimitError`` where it asks for more shared memory than ``limits`` has; ``CUDAError``.
    func launch<each Argument: KernelArgument>(
        _ name: KernelName, _ shape: LaunchShape, _ arguments: repeat each Argument
    ) throws {
        guard !shape.isEmpty else { return }
        if shape.sharedBytes > limits.sharedMemory {
            throw KernelLimitError.sharedMemory(
                kernel: "\(name)", bytes: shape.sharedBytes, most: limits.sharedMemory)
        }
        var list = ArgumentList()
        repeat (each arguments).append(to: &list)
        for event in list.pending { try queue.wait(for: event) }
        try kernels.kernel(name).launch(shape, &list, on: queue)
    }

    /// A small index tensor that is the same in every step, uploaded once.
    func constant(_ values: [Int]) throws -> Tensor {
        let key = values.map { Int32($0) }
        let result: Tensor
        if let known = constants.withLock({ $0[key] }) {
            result = known
        } else {
            result = try tensor(key, Shape(key.count), .workspace)
            constants.withLock { constants in
                // Batches of ever new lengths must not pile up.
                if constants.count >= CUDABackend.constantLimit { constants.removeAll() }
                constants[key] = result
            }
        }
        recording.withLock { $0?.constants.append(result) }
        return result
    }

    private static let constantLimit = 256
}

extension Tensor {
    /// The ending of a kernel's name for this element type.
    var suffix: String { dtype == .bf16 ? "bf16" : "f32" }
}
