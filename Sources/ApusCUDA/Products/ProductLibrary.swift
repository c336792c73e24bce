import ApusTensor
import CApusDrivers
import Synchronization

/// cuBLASLt on one device, and what it has prepared for each kind of product.
// Sendable: the table and the handle never change; cuBLASLt may be called from any thread.
final class ProductLibrary: @unchecked Sendable {
    let functions: apus_cublaslt_table
    /// The CUDA that it belongs to.
    let version: LibraryVersion
    private let context: CUDAContext
    private let handle: apus_blas_handle
    private let prepared = Mutex<[ProductPlan: PreparedProduct]>([:])

    /// Bytes of workspace that an algorithm may use: what cuBLAS takes by default on Hopper.
    static let workspaceLimit = 32 << 20
    /// Kinds of products that are kept prepared: batches of ever new lengths must not pile up.
    private static let preparedLimit = 4096

    static let loader = LibraryLoader(
        library: "cuBLASLt", names: String(cString: apus_cublaslt_names), needed: LibraryVersion(12, 0))

    /// The newest library that a driver of this context's version serves.
    convenience init(_ context: CUDAContext) throws {
        let loader = ProductLibrary.loader.upTo(major: context.driver.version.major)
        try self.init(context, functions: loader.table(apus_cublaslt_load).functions)
    }

    init(_ context: CUDAContext, functions: apus_cublaslt_table) throws {
        self.context = context
        self.functions = functions
        version = LibraryVersion(cublas: functions.version())
        try ProductLibrary.loader.check(version)
        try context.makeCurrent()
        var created: apus_blas_handle?
        try ProductLibrary.check(functions, functions.create(&created), "cublasLtCreate")
        guard let created else { preconditionFailure("cublasLtCreate made no handle") }
        handle = created
    }

    deinit { _ = functions.destroy(handle) }

    /// `d = alpha * a b + beta * d` on `stream`, all stored by columns; with a bias, its element i added to row i.
    func multiply(
        _ plan: ProductPlan, a: UInt64, b: UInt64, d: UInt64, bias: UInt64? = nil, alpha: Float, beta: Float,
        on stream: CUDAStream, allocator: CachingAllocator
    ) throws {
        try context.makeCurrent()
        let problem = try prepare(plan, bias)
        let choice = problem.choice
        let workspace =
            choice.workspace_bytes == 0
            ? nil : try allocator.allocate(byteCount: choice.workspace_bytes, purpose: .workspace)
        var (alpha, beta, algorithm) = (alpha, beta, choice.algorithm)
        guard let a = pointer(a), let b = pointer(b), let d = UnsafeMutableRawPointer(mutating: pointer(d)) else {
            preconditionFailure("an operand of a product has no address")
        }
        try problem.withBias(bias, self) { () throws(CUDAError) in
            try check(
                functions.multiply(
                    handle, problem.product, &alpha, a, problem.a, b, problem.b, &beta, d, problem.d, d, problem.d,
                    &algorithm, workspace?.pointer, choice.workspace_bytes, stream.handle),
                "cublasLtMatmul of \(plan)")
        }
    }

    private func pointer(_ address: UInt64) -> UnsafeRawPointer? { UnsafeRawPointer(bitPattern: UInt(address)) }

    private func prepare(_ plan: ProductPlan, _ bias: UInt64?) throws(CUDAError) -> PreparedProduct {
        if let known = prepared.withLock({ $0[plan] }) { return known }
        let result = try PreparedProduct(plan, bias: bias, self)
        prepared.withLock { prepared in
            if prepared.count >= ProductLibrary.preparedLimit { prepared.removeAll() }
            prepared[plan] = result
        }
        return result
    }

    /// The library's first choice of an algorithm.
    func choose(
        _ plan: ProductPlan, _ product: apus_blas_product, _ a: apus_blas_layout, _ b: apus_blas_layout,
        _ d: apus_blas_layout
    ) throws(CUDAError) -> apus_blas_choice {
        var preference: apus_blas_preference?
        try check(functions.preference_create(&preference), "cublasLtMatmulPreferenceCreate")
        guard let preference else { preconditionFailure("cublasLtMatmulPreferenceCreate made none") }
        defer { _ = functions.preference_destroy(preference) }
        var bytes = UInt64(ProductLibrary.workspaceLimit)
        try check(
            functions.preference_set(preference, APUS_BLAS_PREFERENCE_WORKSPACE_BYTES, &bytes, 8),
            "cublasLtMatmulPreferenceSetAttribute")
        for (key, value) in [
            (APUS_BLAS_PREFERENCE_REDUCTIONS, Int(APUS_BLAS_REDUCTION_COMPUTE_TYPE)),
            (APUS_BLAS_PREFERENCE_ALIGNMENT_A, plan.a.alignment), (APUS_BLAS_PREFERENCE_ALIGNMENT_B, plan.b.alignment),
            (APUS_BLAS_PREFERENCE_ALIGNMENT_C, plan.d.alignment), (APUS_BLAS_PREFERENCE_ALIGNMENT_D, plan.d.alignment),
        ] {
            var value = UInt32(value)
            try check(functions.preference_set(preference, key, &value, 4), "cublasLtMatmulPreferenceSetAttribute")
        }
        var (choice, found) = (apus_blas_choice(), Int32(0))
        try check(
            functions.choose(
                handle, product, a, b, d, d, preference, 1, &choice, &found),
            "cublasLtMatmulAlgoGetHeuristic of \(plan)")
        // 15 is CUBLAS_STATUS_NOT_SUPPORTED.
        try check(found > 0 ? choice.status : 15, "cublasLtMatmulAlgoGetHeuristic of \(plan)")
        return choice
    }

    func check(
        _ code: Int32, _ call: @autoclosure () -> String, file: StaticString = #fileID, line: Int = #line
    ) throws(CUDAError) {
        if code != 0 { try ProductLibrary.check(functions, code, call(), file: file, line: line) }
    }

    private static func check(
        _ functions: apus_cublaslt_table, _ code: Int32, _ call: String, file: StaticString = #fileID, line: Int = #line
    ) throws(CUDAError) {
        guard code != 0 else { return }
        throw CUDAError(
            call: call, code: Int(code), name: String(cString: functions.error_name(code)), file: file, line: line)
    }
}
