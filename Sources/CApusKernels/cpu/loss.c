// Cross-entropy over rows of logits.

#include "apus_loss.h"

#include "simd_math.h"

#define APUS_TEMPLATE "logsumexp_template.h"
#include "element_types.h"

#define APUS_TEMPLATE "cross_entropy_template.h"
#include "element_types.h"

#define LOGIT float
#define LOAD_LOGIT load_f32
#define LOGIT_TO_FLOAT(x) (x)
#define GRADIENT float
#define STORE_GRADIENT store_f32
#define GRADIENT_FROM_FLOAT(x) (x)
#define BACKWARD apus_cross_entropy_backward_f32
#include "cross_entropy_backward_template.h"

#define LOGIT apus_bf16
#define LOAD_LOGIT load_bf16
#define LOGIT_TO_FLOAT(x) bf16_to_float(x)
#define GRADIENT apus_bf16
#define STORE_GRADIENT store_bf16
#define GRADIENT_FROM_FLOAT(x) bf16_from_float(x)
#define BACKWARD apus_cross_entropy_backward_bf16
#include "cross_entropy_backward_template.h"

#define LOGIT float
#define LOAD_LOGIT load_f32
#define LOGIT_TO_FLOAT(x) (x)
#define GRADIENT apus_bf16
#define STORE_GRADIENT store_bf16
#define GRADIENT_FROM_FLOAT(x) bf16_from_float(x)
#define BACKWARD apus_cross_entropy_backward_f32_to_bf16
#include "cross_entropy_backward_template.h"
