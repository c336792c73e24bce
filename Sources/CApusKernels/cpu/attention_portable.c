// Attention kernels for any CPU.
#include "attention_internal.h"

#include <string.h>

#define APUS_LANES 4
#if defined(__aarch64__) || defined(__FMA__)
#define APUS_FUSED 1
#else
#define APUS_FUSED 0
#endif
#define APUS_NAME(name) name##_portable

#include "attention_vector.h"
#include "attention_product.h"
#include "attention_pack.h"
#include "attention_forward.h"
#include "attention_backward.h"
