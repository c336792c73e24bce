#ifndef APUS_ONEDNN_LIBRARY_H
#define APUS_ONEDNN_LIBRARY_H

#if defined(__has_include)
#if __has_include(<oneapi/dnnl/dnnl.h>)
#include <oneapi/dnnl/dnnl.h>
#if DNNL_VERSION_MAJOR >= 2 && DNNL_VERSION_MAJOR <= 3
#define APUS_HAVE_ONEDNN 1
#endif
#endif
#endif

#ifdef APUS_HAVE_ONEDNN

/// The entry points used, common to both major versions.
#define ONEDNN_COMMON_SYMBOLS(X)                                                                                       \
    X(dnnl_version)                                                                                                    \
    X(dnnl_engine_create)                                                                                              \
    X(dnnl_stream_create)                                                                                              \
    X(dnnl_stream_destroy)                                                                                             \
    X(dnnl_primitive_attr_create)                                                                                      \
    X(dnnl_primitive_attr_destroy)                                                                                     \
    X(dnnl_primitive_attr_set_post_ops)                                                                                \
    X(dnnl_post_ops_create)                                                                                            \
    X(dnnl_post_ops_destroy)                                                                                           \
    X(dnnl_post_ops_append_sum)                                                                                        \
    X(dnnl_primitive_desc_destroy)                                                                                     \
    X(dnnl_primitive_create)                                                                                           \
    X(dnnl_primitive_destroy)                                                                                          \
    X(dnnl_primitive_execute)                                                                                          \
    X(dnnl_memory_create)                                                                                              \
    X(dnnl_memory_destroy)                                                                                             \
    X(dnnl_memory_set_data_handle)

#if DNNL_VERSION_MAJOR >= 3
#define ONEDNN_SYMBOLS(X)                                                                                              \
    ONEDNN_COMMON_SYMBOLS(X)                                                                                           \
    X(dnnl_memory_desc_create_with_strides)                                                                            \
    X(dnnl_memory_desc_destroy)                                                                                        \
    X(dnnl_matmul_primitive_desc_create)
#else
#define ONEDNN_SYMBOLS(X)                                                                                              \
    ONEDNN_COMMON_SYMBOLS(X)                                                                                           \
    X(dnnl_memory_desc_init_by_strides)                                                                                \
    X(dnnl_matmul_desc_init)                                                                                           \
    X(dnnl_primitive_desc_create)
#endif

/// oneDNN as loaded at run time. Fields carry the names of the functions without the prefix.
typedef struct onednn_library {
#define ONEDNN_FIELD(name) __typeof__(&name) name;
    ONEDNN_SYMBOLS(ONEDNN_FIELD)
#undef ONEDNN_FIELD
    /// OpenMP's, of the runtime that oneDNN is linked to; NULL for a build without OpenMP.
    void (*omp_set_num_threads)(int);
    dnnl_engine_t engine;
    /// Empty when usable, otherwise why not.
    char problem[160];
} onednn_library;

/// Loads oneDNN on the first call. Never NULL: check `problem`.
const onednn_library *apus_onednn_library(void);

#endif
#endif
