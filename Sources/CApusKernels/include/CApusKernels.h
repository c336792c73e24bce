#ifndef CAPUS_KERNELS_H
#define CAPUS_KERNELS_H

// The C kernels of the CPU backend: matrix products, attention, and the fused element-wise, reduction, routing and
// optimizer passes.
//
// Every kernel is single-threaded, allocates nothing and works on the range of rows or elements it is given. Sizes
// and strides are in elements. Names end in the element type of the activations, _f32 or _bf16.

#include "apus_types.h"

#include "apus_activation.h"
#include "apus_attention.h"
#include "apus_clamp.h"
#include "apus_convolution.h"
#include "apus_cores.h"
#include "apus_cpu.h"
#include "apus_distillation.h"
#include "apus_dropout.h"
#include "apus_elementwise.h"
#include "apus_gemm.h"
#include "apus_loss.h"
#include "apus_mix.h"
#include "apus_norm.h"
#include "apus_onednn.h"
#include "apus_optimizer.h"
#include "apus_peak.h"
#include "apus_random.h"
#include "apus_rope.h"
#include "apus_routing.h"
#include "apus_rows.h"
#include "apus_softmax.h"

#endif
