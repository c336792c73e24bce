public import ApusTensor
import CApusKernels

/// Ops on the host: oneDNN or our own kernels for products, fused C kernels for the rest, one thread pool for all.
///
/// Kernels run single-threaded on the ranges that the pool hands out, so a result does not depend on how many threads
/// there are wherever an op is row-wise; column sums add one partial sum for each fixed block of rows.
public final class CPUBackend: Backend {
    /// The host memory that ops allocate from.
    public let allocator: CachingAllocator
    /// The threads that ops run on.
    public let pool: ThreadPool
    /// Which implementation computes products.
    public let productEngine: ProductEngine
    /// See ``Backend/isBatchInvariant``.
    public let isBatchInvariant: Bool
    /// Inline.
    public let stream = Stream.cpu

    /// An implementation of matrix products.
    public enum ProductEngine: String, Sendable, CaseIterable {
        /// The faster of the two for the shape at hand.
        case automatic = "auto"
        /// oneDNN, found at run time.
        case oneDNN = "onednn"
        /// The kernels of this project.
        case own
    }

    /// A backend on `threadCount` threads; by default one for each core the process may use.
    ///
    /// - Parameters:
    ///   - memoryLimit: Most bytes of tensors that may be live; `nil` for what the machine has.
    ///   - batchInvariant: Trade speed for results that do not depend on the rest of the batch.
    public init(
        threadCount: Int = ThreadPool.availableCores, memoryLimit: Int? = nil,
        productEngine: ProductEngine = .automatic, batchInvariant: Bool = false
    ) {
        allocator = CachingAllocator(limit: memoryLimit)
        pool = ThreadPool(threadCount: threadCount)
        self.productEngine = productEngine
        isBatchInvariant = batchInvariant
    }

    /// A backend on the threads of another, whose memory is its own: what it uses is neither limited nor counted there.
    init(sharingThreadsOf other: CPUBackend) {
        allocator = CachingAllocator()
        pool = other.pool
        productEngine = other.productEngine
        isBatchInvariant = other.isBatchInvariant
    }

    /// See ``Backend/wait(for:)``.
    public func wait(for event: Event) throws { try event.wait() }

    /// Scratch memory for one op, `bytesPerThread` for each thread of the pool, a cache line apart.
    func workspace(bytesPerThread: Int) throws -> Workspace {
        let stride = (bytesPerThread + 63) / 64 * 64
        return Workspace(
            storage: try allocator.allocate(byteCount: stride * pool.threadCount, purpose: .workspace), stride: stride)
    }

    /// Per-thread scratch memory.
    struct Workspace {
        let storage: Storage
        let stride: Int

        func pointer(thread: Int) -> UnsafeMutableRawPointer { storage.pointer + thread * stride }
    }
}

extension Tensor {
    /// Waits for work elsewhere that completes this tensor. Every CPU op calls it on what it reads.
    func waitUntilReady() throws { try ready?.wait() }

    /// The address of row `index` as raw bytes.
    func rowPointer(_ index: Int) -> UnsafeMutableRawPointer {
        rawPointer + dtype.byteCount(elements: index * rowStride)
    }

    /// The element type as the C kernels name it.
    var kernelType: apus_dtype {
        switch dtype {
        case .f32: APUS_F32
        case .bf16: APUS_BF16
        case .i32, .u8: preconditionFailure("\(dtype) is no type for arithmetic")
        }
    }
}
