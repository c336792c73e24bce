#ifndef APUS_PEAK_H
#define APUS_PEAK_H

// The most arithmetic that a core can do: multiply-adds on registers alone, enough of them independent of each other
// that none waits for the last. What products reach is given as a share of it.

#include <stddef.h>

#include "apus_types.h"

/// Runs `rounds` rounds with the widest multiply-add that `apus_cpu_features()` allows, and returns their operations:
/// two for each product that is added. `dtype` is the type of the factors; sums are f32. Without an instruction for
/// bf16 factors, these are widened and multiplied as f32, so that their peak is that of f32.
/// `*sink` gets a value that depends on every operation.
double apus_peak_run(apus_dtype dtype, ptrdiff_t rounds, float *sink);

#endif
