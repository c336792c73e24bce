#ifndef APUS_TYPES_H
#define APUS_TYPES_H

#include <stddef.h>
#include <stdint.h>

/// A bfloat16 number as its bit pattern: the upper half of an IEEE binary32.
typedef uint16_t apus_bf16;

/// Element type of a stored matrix.
typedef enum apus_dtype {
    APUS_F32 = 0,
    APUS_BF16 = 1,
} apus_dtype;

#endif
