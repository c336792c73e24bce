import CApusDrivers
import Synchronization

/// All kernels of the program on one device, by name.
final class KernelLibrary: Sendable {
    private let context: CUDAContext
    private let modules: [KernelModule]
    private let kernels = Mutex<[KernelName: Kernel]>([:])
    /// Files that were compiled rather than read from the cache.
    let compiledCount: Int

    /// Reads every file's code from the cache, and compiles what is not there on all cores at once.
    ///
    /// - Parameter names: Tells which kernels a file's code holds; `nil` for bytes that are no code.
    /// - Throws: ``CUDAError``, with the compiler's report where it refuses a file.
    init(
        _ context: CUDAContext, compiler: KernelCompiler, cache: KernelCache, files: [KernelFile],
        names: @escaping @Sendable ([UInt8]) -> KernelNames? = KernelNames.init(of:)
    ) throws {
        self.context = context
        let headers = files.filter(\.isHeader)
        let sources = files.filter { !$0.isHeader }.compactMap { file in
            file.architecture(for: context.device.capability).map { (file: file, architecture: $0) }
        }
        let results = Results()
        CompilerThreads.run(parts: sources.count) { index in
            let (file, architecture) = sources[index]
            let name = KernelCache.name(
                of: file, headers: headers, options: KernelCompiler.options(architecture), compiler: compiler.version)
            let result = Result {
                if let image = cache.read(name), let kernels = names(image),
                    let module = try? KernelModule(image, kernels, context)
                {
                    return module
                }
                let image = try compiler.compile(file, headers: headers, architecture: architecture)
                results.compiled.wrappingAdd(1, ordering: .relaxed)
                cache.write(image, as: name)
                guard let kernels = names(image) else {
                    preconditionFailure("\(file.name) was compiled to no ELF file")
                }
                return try KernelModule(image, kernels, context)
            }
            results.modules.withLock { $0[index] = result }
        }
        modules = try results.modules.withLock { modules in try sources.indices.compactMap { try modules[$0]?.get() } }
        compiledCount = results.compiled.load(ordering: .relaxed)
    }

    /// What the threads leave behind.
    private final class Results: Sendable {
        let modules = Mutex<[Int: Result<KernelModule, any Error>]>([:])
        let compiled = Atomic<Int>(0)
    }

    /// The kernel of a name, which must be in one of the files.
    func kernel(_ name: KernelName) throws(CUDAError) -> Kernel {
        if let kernel = kernels.withLock({ $0[name] }) { return kernel }
        let text = "\(name)"
        guard let module = modules.first(where: { $0.names.contains(text) }) else {
            preconditionFailure("no kernel file has \(text)")
        }
        let kernel = try module.kernel(text)
        kernels.withLock { $0[name] = kernel }
        return kernel
    }
}

/// The code of one file on the device.
// Sendable: the handle never changes.
private final class KernelModule: @unchecked Sendable {
    let names: KernelNames
    private let context: CUDAContext
    private let handle: apus_cu_module

    init(_ image: [UInt8], _ names: KernelNames, _ context: CUDAContext) throws(CUDAError) {
        self.names = names
        self.context = context
        try context.makeCurrent()
        var module: apus_cu_module?
        try context.driver.check(context.driver.functions.module_load(&module, image), "cuModuleLoadData")
        guard let module else { preconditionFailure("cuModuleLoadData made no module") }
        handle = module
    }

    deinit {
        _ = try? context.makeCurrent()
        _ = context.driver.functions.module_unload(handle)
    }

    func kernel(_ name: String) throws(CUDAError) -> Kernel {
        try context.makeCurrent()
        var function: apus_cu_function?
        try context.driver.check(
            context.driver.functions.module_function(&function, handle, name), "cuModuleGetFunction of \(name)")
        guard let function else { preconditionFailure("cuModuleGetFunction found no \(name)") }
        return Kernel(name: name, handle: function, context: context)
    }
}
