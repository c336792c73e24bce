import ApusTensor
import CApusDrivers
import Synchronization

/// A product ready to run: cuBLASLt's descriptors of a plan, and the algorithm that it chose.
// Sendable: nothing changes after the descriptors are made but the address of the bias, under its lock.
final class PreparedProduct: @unchecked Sendable {
    let product: apus_blas_product
    let a: apus_blas_layout
    let b: apus_blas_layout
    let d: apus_blas_layout
    let choice: apus_blas_choice
    private let owned: [OwnedHandle]
    private let biasLock = Mutex<Void>(())

    /// `bias` is the first address; later ones are as well aligned.
    init(_ plan: ProductPlan, bias: UInt64?, _ library: ProductLibrary) throws(CUDAError) {
        precondition(plan.addsBias == (bias != nil))
        let functions = library.functions
        var owned: [OwnedHandle] = []
        func layout(_ operand: ProductPlan.Operand) throws(CUDAError) -> apus_blas_layout {
            var layout: apus_blas_layout?
            try library.check(
                functions.layout_create(
                    &layout, operand.type == .f32 ? APUS_BLAS_F32 : APUS_BLAS_BF16, UInt64(operand.rows),
                    UInt64(operand.columns), Int64(operand.stride)),
                "cublasLtMatrixLayoutCreate of \(operand)")
            guard let layout else { preconditionFailure("cublasLtMatrixLayoutCreate made none") }
            owned.append(OwnedHandle(layout, functions.layout_destroy))
            return layout
        }
        var created: apus_blas_product?
        try library.check(
            functions.product_create(&created, APUS_BLAS_COMPUTE_F32, APUS_BLAS_F32), "cublasLtMatmulDescCreate")
        guard let created else { preconditionFailure("cublasLtMatmulDescCreate made none") }
        owned.append(OwnedHandle(created, functions.product_destroy))
        for (key, operand) in [(APUS_BLAS_PRODUCT_TRANSPOSE_A, plan.a), (APUS_BLAS_PRODUCT_TRANSPOSE_B, plan.b)] {
            var operation: Int32 = operand.isTransposed ? APUS_BLAS_TRANSPOSED : 0
            try library.check(functions.product_set(created, key, &operation, 4), "cublasLtMatmulDescSetAttribute")
        }
        if let bias {
            var epilogue = APUS_BLAS_EPILOGUE_BIAS
            try library.check(
                functions.product_set(created, APUS_BLAS_PRODUCT_EPILOGUE, &epilogue, 4),
                "cublasLtMatmulDescSetAttribute of the epilogue")
            try PreparedProduct.set(bias, of: created, library)
        }
        let layouts = (try layout(plan.a), try layout(plan.b), try layout(plan.d))
        choice = try library.choose(plan, created, layouts.0, layouts.1, layouts.2)
        (product, a, b, d) = (created, layouts.0, layouts.1, layouts.2)
        self.owned = owned
    }

    /// Runs `body` with the descriptors set for a bias at this address; the library reads them while it is called.
    func withBias(_ bias: UInt64?, _ library: ProductLibrary, _ body: () throws(CUDAError) -> Void) throws(CUDAError) {
        guard let bias else { return try body() }
        try biasLock.withLock { _ throws(CUDAError) in
            try PreparedProduct.set(bias, of: product, library)
            try body()
        }
    }

    private static func set(
        _ bias: UInt64, of product: apus_blas_product, _ library: ProductLibrary
    ) throws(CUDAError) {
        var address = bias
        try library.check(
            library.functions.product_set(product, APUS_BLAS_PRODUCT_BIAS, &address, 8),
            "cublasLtMatmulDescSetAttribute of the bias")
    }
}

/// A handle of a library, destroyed with its last owner.
final class OwnedHandle {
    private let handle: OpaquePointer
    private let destroy: @convention(c) (OpaquePointer) -> Int32

    init(_ handle: OpaquePointer, _ destroy: @escaping @convention(c) (OpaquePointer) -> Int32) {
        self.handle = handle
        self.destroy = destroy
    }

    deinit { _ = destroy(handle) }
}
