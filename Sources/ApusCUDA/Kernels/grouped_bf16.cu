// Grouped products in bf16 with tiles of 128 x 256, for devices whose blocks get 192 KB of shared memory. See
// grouped_bf16.cuh.

#include "grouped_bf16.cuh"

DEFINE_GROUPED(grouped_transposed_bf16, 256, true)
DEFINE_GROUPED(grouped_bf16, 256, false)
DEFINE_GROUPED_GRADIENT(grouped_gradient_bf16_f32, 256, float)
DEFINE_GROUPED_GRADIENT(grouped_gradient_bf16_bf16, 256, bf16)
