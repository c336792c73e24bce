// Gather, combine and embedding gradient.

#include "apus_rows.h"

#include "simd.h"

#define APUS_TEMPLATE "rows_template.h"
#include "element_types.h"
