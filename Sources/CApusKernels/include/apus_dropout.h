#ifndef APUS_DROPOUT_H
#define APUS_DROPOUT_H

// Dropout of rows that say themselves which rows of a larger whole they are.

#include <stddef.h>
#include <stdint.h>

#include "apus_random.h"
#include "apus_types.h"

/// What one call drops by: element i of a row with number n has the draw `n * total + first + i` of the stream.
typedef struct apus_dropout {
    apus_random_stream stream;
    /// First column that is here, and columns of a whole row.
    uint64_t first, total;
    /// Draws below `rate` give 0, others x * factor.
    float rate, factor;
} apus_dropout;

/// y = x * factor or 0, rows of `width` columns; y may be x. A row's number is `numbers[2 r] * 65536 + numbers[2 r + 1]`.
void apus_dropout_rows_f32(
    float *y, ptrdiff_t ys, const float *x, ptrdiff_t xs, const float *numbers, ptrdiff_t rows, ptrdiff_t width,
    apus_dropout dropout);
void apus_dropout_rows_bf16(
    apus_bf16 *y, ptrdiff_t ys, const apus_bf16 *x, ptrdiff_t xs, const float *numbers, ptrdiff_t rows, ptrdiff_t width,
    apus_dropout dropout);

#endif
