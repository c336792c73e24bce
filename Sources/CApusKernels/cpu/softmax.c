// Softmax, log-sum-exp and sigmoid.

#include "apus_softmax.h"

#include "simd_math.h"

#define APUS_TEMPLATE "logsumexp_template.h"
#include "element_types.h"

#define APUS_TEMPLATE "softmax_template.h"
#include "element_types.h"
