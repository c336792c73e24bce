#ifndef CAPUS_DRIVERS_H
#define CAPUS_DRIVERS_H

/* Libraries that are found at run time, each as a table of the functions that are used. Declared here from their public
 * documentation, so that neither their headers nor they themselves are needed to build. */
#include "apus_cublaslt.h"
#include "apus_cuda.h"
#include "apus_cudnn.h"
#include "apus_library.h"
#include "apus_mpi.h"
#include "apus_nccl.h"
#include "apus_nvrtc.h"

#endif
