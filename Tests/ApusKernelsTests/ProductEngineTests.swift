import ApusTensor
import ApusTestSupport
import CApusKernels
import Testing

@Suite struct `The product kernels` {
    private let allocator = CachingAllocator()

    /// A product of (m, k) and (k, n) matrices on top of what C holds; `body` may change it before it runs.
    private func product(_ m: Int, _ n: Int, _ k: Int, transposedA: Bool, transposedB: Bool) throws -> (
        arguments: apus_gemm_args, c: Tensor, operands: [Tensor]
    ) {
        let a = try allocator.random(transposedA ? Shape(k, m) : Shape(m, k), seed: 1)
        let b = try allocator.random(transposedB ? Shape(n, k) : Shape(k, n), seed: 2)
        let c = try allocator.random(Shape(m, n), seed: 3)
        var arguments = apus_gemm_args()
        (arguments.m, arguments.n, arguments.k) = (m, n, k)
        (arguments.a, arguments.lda) = (UnsafeRawPointer(a.rawPointer), a.rowStride)
        (arguments.b, arguments.ldb) = (UnsafeRawPointer(b.rawPointer), b.rowStride)
        (arguments.c, arguments.ldc) = (c.rawPointer, n)
        (arguments.alpha, arguments.beta) = (1, 1)
        arguments.a_transposed = transposedA ? 1 : 0
        arguments.b_transposed = transposedB ? 1 : 0
        return (arguments, c, [a, b])
    }

    /// What a failure after some pieces leaves, a second attempt must not add again.
    @Test(
        .enabled(if: apus_onednn_available() != 0),
        arguments: [(768, 128, 64, false, true), (768, 128, 64, false, false), (64, 96, 768, true, false)], [0, 1, 9])
    func `finish what oneDNN leaves undone`(
        form: (m: Int, n: Int, k: Int, transposedA: Bool, transposedB: Bool), pieces: Int
    ) throws {
        let scratch = try allocator.allocate(byteCount: apus_gemm_workspace_max(), purpose: .workspace)
        let make = {
            try product(form.m, form.n, form.k, transposedA: form.transposedA, transposedB: form.transposedB)
        }
        var whole = try make()
        #expect(apus_gemm(&whole.arguments, APUS_GEMM_OWN, scratch.pointer) == APUS_GEMM_OK)
        var cut = try make()
        var rest = apus_gemm_args()
        apus_onednn_fail_after(pieces)
        let status = apus_onednn_gemm(&cut.arguments, &rest)
        apus_onednn_fail_after(-1)
        #expect((status == APUS_GEMM_OK) == (pieces > 2 || pieces == 1 && !form.transposedA && !form.transposedB))
        if status != APUS_GEMM_OK {
            #expect(apus_gemm(&rest, APUS_GEMM_OWN, scratch.pointer) == APUS_GEMM_OK)
        }
        for (found, wanted) in zip(cut.c.floats(), whole.c.floats()) { #expect(abs(found - wanted) < 1e-3) }
    }

    @Test(.enabled(if: apus_onednn_available() != 0)) func `choose for themselves without adding twice`() throws {
        let scratch = try allocator.allocate(byteCount: apus_gemm_workspace_max(), purpose: .workspace)
        var whole = try product(768, 128, 64, transposedA: false, transposedB: true)
        #expect(apus_gemm(&whole.arguments, APUS_GEMM_OWN, scratch.pointer) == APUS_GEMM_OK)
        var cut = try product(768, 128, 64, transposedA: false, transposedB: true)
        apus_onednn_fail_after(1)
        let status = apus_gemm(&cut.arguments, APUS_GEMM_AUTO, scratch.pointer)
        apus_onednn_fail_after(-1)
        #expect(status == APUS_GEMM_OK)
        for (found, wanted) in zip(cut.c.floats(), whole.c.floats()) { #expect(abs(found - wanted) < 1e-3) }
    }

    @Test(arguments: [(3, 70, 33), (40, 200, 1100), (400, 64, 512)], [false, true])
    func `take a B that was packed before, to the same bits`(sizes: (m: Int, n: Int, k: Int), transposedB: Bool) throws
    {
        let scratch = try allocator.allocate(byteCount: apus_gemm_workspace_max(), purpose: .workspace)
        var direct = try product(sizes.m, sizes.n, sizes.k, transposedA: false, transposedB: transposedB)
        // Batch invariance keeps few rows from a kernel that packs nothing and sums in another order.
        direct.arguments.batch_invariant = 1
        var packing = try product(sizes.m, sizes.n, sizes.k, transposedA: false, transposedB: transposedB)
        let packed = try allocator.allocate(
            byteCount: apus_gemm_packed_b_size(&packing.arguments), purpose: .workspace)
        #expect(apus_gemm(&direct.arguments, APUS_GEMM_OWN, scratch.pointer) == APUS_GEMM_OK)
        #expect(apus_gemm_pack_b(&packing.arguments, packed.pointer) == APUS_GEMM_OK)
        packing.arguments.b = nil
        #expect(apus_gemm_with_packed_b(&packing.arguments, packed.pointer, scratch.pointer) == APUS_GEMM_OK)
        #expect(packing.c.floats() == direct.c.floats())
    }
}
