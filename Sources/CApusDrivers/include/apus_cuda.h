#ifndef APUS_CUDA_H
#define APUS_CUDA_H

#include <stddef.h>
#include <stdint.h>

#include "apus_library.h"

/* The CUDA driver API, as of version 12.0 (CUDA Driver API Reference). A function returns a code, 0 for success. */

/* An address in the memory of a device. */
typedef uint64_t apus_cu_address;
typedef int apus_cu_device;
typedef struct apus_cu_context_object *apus_cu_context;
typedef struct apus_cu_stream_object *apus_cu_stream;
typedef struct apus_cu_event_object *apus_cu_event;
typedef struct apus_cu_module_object *apus_cu_module;
typedef struct apus_cu_function_object *apus_cu_function;
typedef struct apus_cu_graph_object *apus_cu_graph;
/* A graph made ready to be launched (CUgraphExec). */
typedef struct apus_cu_graph_runnable_object *apus_cu_graph_runnable;

/* Codes. */
#define APUS_CU_SUCCESS 0
#define APUS_CU_OUT_OF_MEMORY 2
#define APUS_CU_NO_DEVICE 100
#define APUS_CU_NOT_READY 600

/* Attributes of a device. */
#define APUS_CU_SHARED_MEMORY_PER_BLOCK_OPTIN 97
#define APUS_CU_MULTIPROCESSORS 16
#define APUS_CU_L2_BYTES 38
#define APUS_CU_PCI_BUS 33
#define APUS_CU_PCI_DEVICE 34
#define APUS_CU_PCI_DOMAIN 50
#define APUS_CU_CAPABILITY_MAJOR 75
#define APUS_CU_CAPABILITY_MINOR 76

/* Attributes of a function. */
#define APUS_CU_FUNCTION_MAX_DYNAMIC_SHARED_BYTES 8

/* Flags. */
#define APUS_CU_STREAM_NON_BLOCKING 1u
/* Lower comes first; the driver raises it to the lowest number that it has. */
#define APUS_CU_PRIORITY_HIGHEST (-1000)
#define APUS_CU_EVENT_DEFAULT 0u
#define APUS_CU_EVENT_DISABLE_TIMING 2u
#define APUS_CU_CAPTURE_RELAXED 2

/* How a tensor copy of Hopper and later finds a matrix in memory (CUtensorMap), and the values that are used here: types, no
 * interleaving, a swizzle of 128 bytes, 256 bytes fetched into the second-level cache, zeros outside. */
typedef struct {
    uint64_t words[16];
} apus_cu_tensor_map;
#define APUS_CU_TENSOR_MAP_F32 7
#define APUS_CU_TENSOR_MAP_BF16 9
#define APUS_CU_TENSOR_MAP_PLAIN 0
#define APUS_CU_TENSOR_MAP_SWIZZLE_128 3
#define APUS_CU_TENSOR_MAP_FETCH_256 3
#define APUS_CU_TENSOR_MAP_ZEROS 0

#define APUS_CUDA_FUNCTIONS(F)                                                                                         \
    F(initialize, cuInit, (unsigned flags))                                                                            \
    F(driver_version, cuDriverGetVersion, (int *_Nonnull version))                                                     \
    F(error_name, cuGetErrorName, (int code, const char *_Nullable *_Nonnull text))                                    \
    F(error_text, cuGetErrorString, (int code, const char *_Nullable *_Nonnull text))                                  \
    F(device_count, cuDeviceGetCount, (int *_Nonnull count))                                                           \
    F(device, cuDeviceGet, (apus_cu_device *_Nonnull device, int ordinal))                                             \
    F(device_name, cuDeviceGetName, (char *_Nonnull name, int size, apus_cu_device device))                            \
    F(device_attribute, cuDeviceGetAttribute, (int *_Nonnull value, int attribute, apus_cu_device device))             \
    F(device_memory, cuDeviceTotalMem_v2, (size_t *_Nonnull bytes, apus_cu_device device))                             \
    F(primary_context_retain, cuDevicePrimaryCtxRetain,                                                                \
      (apus_cu_context _Nullable *_Nonnull context, apus_cu_device device))                                            \
    F(primary_context_release, cuDevicePrimaryCtxRelease_v2, (apus_cu_device device))                                  \
    F(set_current, cuCtxSetCurrent, (apus_cu_context _Nullable context))                                               \
    F(allocate, cuMemAlloc_v2, (apus_cu_address *_Nonnull address, size_t bytes))                                      \
    F(free, cuMemFree_v2, (apus_cu_address address))                                                                   \
    F(allocate_host, cuMemHostAlloc, (void *_Nullable *_Nonnull address, size_t bytes, unsigned flags))                \
    F(free_host, cuMemFreeHost, (void *_Nullable address))                                                             \
    F(copy_to_device, cuMemcpyHtoDAsync_v2,                                                                            \
      (apus_cu_address target, const void *_Nonnull source, size_t bytes, apus_cu_stream _Nonnull stream))             \
    F(copy_to_host, cuMemcpyDtoHAsync_v2,                                                                              \
      (void *_Nonnull target, apus_cu_address source, size_t bytes, apus_cu_stream _Nonnull stream))                   \
    F(copy, cuMemcpyDtoDAsync_v2,                                                                                      \
      (apus_cu_address target, apus_cu_address source, size_t bytes, apus_cu_stream _Nonnull stream))                  \
    F(stream_create, cuStreamCreate, (apus_cu_stream _Nullable *_Nonnull stream, unsigned flags))                      \
    F(stream_create_urgent, cuStreamCreateWithPriority,                                                                \
      (apus_cu_stream _Nullable *_Nonnull stream, unsigned flags, int priority))                                       \
    F(stream_destroy, cuStreamDestroy_v2, (apus_cu_stream _Nonnull stream))                                            \
    F(stream_synchronize, cuStreamSynchronize, (apus_cu_stream _Nonnull stream))                                       \
    F(stream_wait_event, cuStreamWaitEvent,                                                                            \
      (apus_cu_stream _Nonnull stream, apus_cu_event _Nonnull event, unsigned flags))                                  \
    F(event_create, cuEventCreate, (apus_cu_event _Nullable *_Nonnull event, unsigned flags))                          \
    F(event_destroy, cuEventDestroy_v2, (apus_cu_event _Nonnull event))                                                \
    F(event_record, cuEventRecord, (apus_cu_event _Nonnull event, apus_cu_stream _Nonnull stream))                     \
    F(event_query, cuEventQuery, (apus_cu_event _Nonnull event))                                                       \
    F(event_synchronize, cuEventSynchronize, (apus_cu_event _Nonnull event))                                           \
    F(event_elapsed, cuEventElapsedTime,                                                                               \
      (float *_Nonnull milliseconds, apus_cu_event _Nonnull begin, apus_cu_event _Nonnull end))                        \
    F(module_load, cuModuleLoadData, (apus_cu_module _Nullable *_Nonnull module, const void *_Nonnull image))          \
    F(module_unload, cuModuleUnload, (apus_cu_module _Nonnull module))                                                 \
    F(module_function, cuModuleGetFunction,                                                                            \
      (apus_cu_function _Nullable *_Nonnull function, apus_cu_module _Nonnull module, const char *_Nonnull name))      \
    F(function_set_attribute, cuFuncSetAttribute, (apus_cu_function _Nonnull function, int attribute, int value))      \
    F(encode_tensor_map, cuTensorMapEncodeTiled,                                                                       \
      (void *_Nonnull map, int type, uint32_t rank, void *_Nonnull address, const uint64_t *_Nonnull extents,          \
       const uint64_t *_Nonnull strides, const uint32_t *_Nonnull box, const uint32_t *_Nonnull steps, int interleave, \
       int swizzle, int fetch, int outside))                                                                           \
    F(launch, cuLaunchKernel,                                                                                          \
      (apus_cu_function _Nonnull function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,        \
       unsigned block_y, unsigned block_z, unsigned shared_bytes, apus_cu_stream _Nonnull stream,                      \
       void *_Nullable *_Nullable parameters, void *_Nullable *_Nullable extra))                                      \
    F(stream_begin_capture, cuStreamBeginCapture_v2, (apus_cu_stream _Nonnull stream, int mode))                       \
    F(stream_end_capture, cuStreamEndCapture,                                                                          \
      (apus_cu_stream _Nonnull stream, apus_cu_graph _Nullable *_Nonnull graph))                                       \
    F(graph_nodes, cuGraphGetNodes,                                                                                    \
      (apus_cu_graph _Nonnull graph, void *_Nullable *_Nullable nodes, size_t *_Nonnull count))                        \
    F(graph_instantiate, cuGraphInstantiateWithFlags,                                                                  \
      (apus_cu_graph_runnable _Nullable *_Nonnull runnable, apus_cu_graph _Nonnull graph, unsigned long long flags))   \
    F(graph_launch, cuGraphLaunch, (apus_cu_graph_runnable _Nonnull runnable, apus_cu_stream _Nonnull stream))         \
    F(graph_destroy, cuGraphDestroy, (apus_cu_graph _Nonnull graph))                                                   \
    F(graph_destroy_runnable, cuGraphExecDestroy, (apus_cu_graph_runnable _Nonnull runnable))

typedef struct {
    APUS_CUDA_FUNCTIONS(APUS_FUNCTION_FIELD)
} apus_cuda_table;

/* The file names by which the driver is looked for. */
extern const char *_Nonnull const apus_cuda_names;

/* Fills the table from the first of `names`; see apus_library_load. */
apus_library_status apus_cuda_load(apus_cuda_table *_Nonnull table, const char *_Nonnull names, char *_Nonnull text,
                                   size_t size);

#endif
