#ifndef APUS_GEMM_H
#define APUS_GEMM_H

#include "apus_types.h"

/// A matrix product C = alpha * op(A) op(B) + beta * C with f32 accumulation, op(A) m x k, op(B) k x n, C m x n.
///
/// All matrices are row-major and strides count elements. Single-threaded: callers split C over threads.
/// The three forms of a linear layer y = x W^T with W stored [out, in]:
/// forward (NT): A = x [T, in], B = W with b_transposed; input gradient (NN): A = dy [T, out], B = W;
/// weight gradient (TN): A = dy [T, out] with a_transposed, B = x [T, in], k = T.
/// C must not overlap A or B.
typedef struct apus_gemm_args {
    ptrdiff_t m, n, k;
    /// A: stored m x k, or k x m when `a_transposed`; `lda` is the stride between stored rows.
    const void *a;
    ptrdiff_t lda;
    /// B: stored k x n, or n x k when `b_transposed`; `ldb` is the stride between stored rows.
    const void *b;
    ptrdiff_t ldb;
    /// C: stored m x n with row stride `ldc`. Not read when `beta` is 0.
    void *c;
    ptrdiff_t ldc;
    /// Optional gather: stored row i of A is at a + a_rows[i] * lda. NULL means row i itself.
    const int32_t *a_rows;
    /// Optional gather: stored row i of B is at b + b_rows[i] * ldb. NULL means row i itself.
    const int32_t *b_rows;
    float alpha;
    float beta;
    apus_dtype a_type, b_type, c_type;
    /// Nonzero flags.
    uint8_t a_transposed;
    uint8_t b_transposed;
    /// Require that row i of C has the same bits whatever `m` is and however C is cut into row blocks.
    /// Selects the own kernel, whose sum over k has one order for every row.
    uint8_t batch_invariant;
} apus_gemm_args;

/// Which implementation computes the product.
typedef enum apus_gemm_engine {
    /// The faster of the other two by measured rules.
    APUS_GEMM_AUTO = 0,
    /// oneDNN, loaded at run time.
    APUS_GEMM_ONEDNN = 1,
    /// The kernels of this library.
    APUS_GEMM_OWN = 2,
} apus_gemm_engine;

/// Results of `apus_gemm`.
enum {
    APUS_GEMM_OK = 0,
    /// A size or stride is negative or too small, or a needed pointer is NULL.
    APUS_GEMM_INVALID = 1,
    /// The named engine cannot compute this product (oneDNN absent, gather, mixed types, batch_invariant).
    APUS_GEMM_UNSUPPORTED = 2,
    /// oneDNN reported an error.
    APUS_GEMM_FAILED = 3,
};

/// Bytes of workspace that a product needs at most, about 1.3 MiB: allocate it once for each thread.
size_t apus_gemm_workspace_max(void);

/// Computes the product. `workspace` holds `apus_gemm_workspace_max()` bytes (any alignment) and is used by
/// one call at a time. m or n = 0 does nothing; k = 0 gives beta * C. AUTO never fails on valid arguments: where oneDNN
/// does, the own kernel computes what is left.
int apus_gemm(const apus_gemm_args *args, apus_gemm_engine engine, void *workspace);

/// The engine that AUTO takes for `args`: APUS_GEMM_ONEDNN or APUS_GEMM_OWN.
apus_gemm_engine apus_gemm_choose(const apus_gemm_args *args);

/// Bytes for a B of the sizes, layout and type in `args` packed by `apus_gemm_pack_b`.
size_t apus_gemm_packed_b_size(const apus_gemm_args *args);

/// Packs B (n, k, b, ldb, b_rows, b_type, b_transposed, a_type of `args`) for repeated use by
/// `apus_gemm_with_packed_b`.
/// `packed` must be 64-byte aligned. The result is valid for the current CPU level and a_type only.
int apus_gemm_pack_b(const apus_gemm_args *args, void *packed);

/// The part of `apus_gemm_pack_b` for columns first ..< first + count of B, so that several threads can share the work.
/// `first` is a multiple of 64 and `count` too, unless they are the last columns; `packed` is that of the whole B.
int apus_gemm_pack_b_columns(const apus_gemm_args *args, ptrdiff_t first, ptrdiff_t count, void *packed);

/// `apus_gemm` with the own kernel and a packed B; b, ldb, b_rows and b_transposed are ignored.
/// Results have the same bits as the own kernel without packing.
int apus_gemm_with_packed_b(const apus_gemm_args *args, const void *packed, void *workspace);

#endif
