import CApusDrivers

/// What this machine has for the CUDA backend: each library's version, or why it cannot be used.
public struct CUDAMachine: Sendable {
    /// A library's version, or what is wrong with it.
    public typealias Found = Result<LibraryVersion, LibraryProblem>

    /// The NVIDIA driver, by the newest CUDA that it serves.
    public let driver: Found
    /// The run-time compiler.
    public let compiler: Found
    /// Dense products.
    public let products: Found
    /// cuDNN, whose attention is used where it is there, unless `APUS_ATTENTION` is `own`.
    public let attention: Found
    /// NCCL, by which several GPUs exchange tensors; one alone does without.
    public let exchanges: Found

    /// Looks for the libraries.
    public init() {
        driver = CUDADriver.shared.map(\.version)
        // Without a driver, the newest of each is as good an answer as any.
        let served = (try? driver.get()) ?? LibraryVersion(.max, 0)
        compiler = Result { () throws(LibraryProblem) in try KernelCompiler(for: served).version }
        products = Result { () throws(LibraryProblem) in
            let loader = ProductLibrary.loader.upTo(major: served.major)
            let version = LibraryVersion(cublas: try loader.table(apus_cublaslt_load).functions.version())
            try loader.check(version)
            return version
        }
        attention = Result { () throws(LibraryProblem) in
            let version = LibraryVersion(cudnn: try FusedAttention.functions().version())
            try AttentionLibrary.loader.check(version)
            return version
        }
        exchanges = NCCLLibrary.shared.map(\.version)
    }

    /// The libraries by name, in the order in which they are needed.
    public var libraries: [(name: String, found: Found)] {
        [
            ("driver", driver), ("NVRTC", compiler), ("cuBLASLt", products), ("cuDNN", attention), ("NCCL", exchanges),
        ]
    }
}

extension LibraryVersion {
    /// 130001 is 13.0.1.
    init(cublas number: Int) { self.init(number / 10_000, number % 10_000 / 100) }
}
