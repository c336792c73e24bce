#ifndef APUS_ONEDNN_H
#define APUS_ONEDNN_H

#include "apus_gemm.h"

/// Whether oneDNN is usable: this library was compiled with its headers and the shared library of the same major
/// version loads. Loading happens on the first call; thread-safe.
int apus_onednn_available(void);

/// Writes the version of the loaded oneDNN ("2.6.3"), or why there is none, to `text` (NUL-terminated, cut to `size`).
/// Returns nonzero when oneDNN is usable.
int apus_onednn_version(char *text, size_t size);

/// Whether oneDNN can compute `args`: available, alpha = 1, no gather, not `batch_invariant`,
/// A and B of one type, and no bf16 result from f32 operands.
int apus_onednn_supports(const apus_gemm_args *args);

/// Computes the product by oneDNN on the calling thread. Returns an APUS_GEMM result.
///
/// Work goes piece by piece. After APUS_GEMM_FAILED, `rest`, unless null, is the product that is still to be computed:
/// all of `args`, or what follows the pieces that succeeded, whose sums must not be added again.
int apus_onednn_gemm(const apus_gemm_args *args, apus_gemm_args *rest);

/// Makes every piece after the next `pieces` on the calling thread fail; negative for none. For tests.
void apus_onednn_fail_after(ptrdiff_t pieces);

#endif
