// Two branches mixed row by row.

#include "apus_mix.h"

#include "simd.h"

#define APUS_TEMPLATE "mix_template.h"
#include "element_types.h"
