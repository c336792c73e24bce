// Grouped products in bf16 with tiles of 128 x 128, for devices whose blocks get less than 192 KB of shared memory: an
// A100, a GeForce. See grouped_bf16.cuh.

#include "grouped_bf16.cuh"

DEFINE_GROUPED(grouped_transposed_bf16_128, 128, true)
DEFINE_GROUPED(grouped_bf16_128, 128, false)
DEFINE_GROUPED_GRADIENT(grouped_gradient_bf16_f32_128, 128, float)
DEFINE_GROUPED_GRADIENT(grouped_gradient_bf16_bf16_128, 128, bf16)
