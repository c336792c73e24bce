#ifndef APUS_NCCL_H
#define APUS_NCCL_H

#include <stddef.h>

#include "apus_cuda.h"
#include "apus_library.h"

/* NCCL, messages between GPUs (NCCL documentation, as of version 2.18). A function returns a code, 0 for success. Streams
 * are those of the driver; the calling thread's device must be the communicator's. Counts are elements. */

typedef struct apus_nccl_communicator_object *apus_nccl_communicator;

/* What ranks that make a communicator together have in common (ncclUniqueId); passed by value. */
#define APUS_NCCL_ID_BYTES 128
typedef struct {
    char bytes[APUS_NCCL_ID_BYTES];
} apus_nccl_id;

/* How a communicator behaves (ncclConfig_t). A newer library reads as much as `size` says; what is not set is the
 * smallest int there is, or null. */
typedef struct {
    size_t size;
    unsigned magic;
    unsigned version;
    int blocking;
    int cluster_size;
    int fewest_blocks;
    int most_blocks;
    const char *_Nullable network;
    int split_share;
    int reserved;
} apus_nccl_configuration;
#define APUS_NCCL_MAGIC 0xcafebeefu
#define APUS_NCCL_CONFIGURATION_VERSION 21800u

/* Codes. */
#define APUS_NCCL_SUCCESS 0
#define APUS_NCCL_IN_PROGRESS 7

/* Element types (ncclDataType_t) and reductions (ncclRedOp_t). */
#define APUS_NCCL_U8 1
#define APUS_NCCL_I32 2
#define APUS_NCCL_F32 7
#define APUS_NCCL_BF16 9
#define APUS_NCCL_SUM 0
#define APUS_NCCL_MAX 2

#define APUS_NCCL_FUNCTIONS(F)                                                                                         \
    F(version, ncclGetVersion, (int *_Nonnull version))                                                                \
    F(make_id, ncclGetUniqueId, (apus_nccl_id *_Nonnull id))                                                           \
    F(initialize, ncclCommInitRankConfig,                                                                              \
      (apus_nccl_communicator _Nullable *_Nonnull communicator, int size, apus_nccl_id id, int rank,                   \
       apus_nccl_configuration *_Nonnull configuration))                                                               \
    F(finalize, ncclCommFinalize, (apus_nccl_communicator _Nonnull communicator))                                      \
    F(destroy, ncclCommDestroy, (apus_nccl_communicator _Nonnull communicator))                                        \
    F(abort, ncclCommAbort, (apus_nccl_communicator _Nonnull communicator))                                            \
    F(asynchronous_error, ncclCommGetAsyncError, (apus_nccl_communicator _Nonnull communicator, int *_Nonnull code))   \
    F(all_reduce, ncclAllReduce,                                                                                       \
      (const void *_Nonnull input, void *_Nonnull output, size_t count, int type, int reduction,                       \
       apus_nccl_communicator _Nonnull communicator, apus_cu_stream _Nonnull stream))                                  \
    F(reduce_scatter, ncclReduceScatter,                                                                               \
      (const void *_Nonnull input, void *_Nonnull output, size_t output_count, int type, int reduction,                \
       apus_nccl_communicator _Nonnull communicator, apus_cu_stream _Nonnull stream))                                  \
    F(all_gather, ncclAllGather,                                                                                       \
      (const void *_Nonnull input, void *_Nonnull output, size_t input_count, int type,                                \
       apus_nccl_communicator _Nonnull communicator, apus_cu_stream _Nonnull stream))                                  \
    F(broadcast, ncclBroadcast,                                                                                        \
      (const void *_Nonnull input, void *_Nonnull output, size_t count, int type, int root,                            \
       apus_nccl_communicator _Nonnull communicator, apus_cu_stream _Nonnull stream))                                  \
    F(send, ncclSend,                                                                                                  \
      (const void *_Nonnull input, size_t count, int type, int peer,                                                   \
       apus_nccl_communicator _Nonnull communicator, apus_cu_stream _Nonnull stream))                                  \
    F(receive, ncclRecv,                                                                                               \
      (void *_Nonnull output, size_t count, int type, int peer,                                                        \
       apus_nccl_communicator _Nonnull communicator, apus_cu_stream _Nonnull stream))                                  \
    F(group_start, ncclGroupStart, (void))                                                                             \
    F(group_end, ncclGroupEnd, (void))

typedef struct {
    APUS_NCCL_FUNCTIONS(APUS_FUNCTION_FIELD)
    /* What a code means, and what the library last complained of; never null. Last, because they return no code. */
    const char *_Nonnull (*_Nonnull error_text)(int code);
    const char *_Nullable (*_Nonnull last_error)(apus_nccl_communicator _Nullable communicator);
} apus_nccl_table;

/* The file names by which it is looked for. */
extern const char *_Nonnull const apus_nccl_names;

/* Fills the table from the first of `names`; see apus_library_load. */
apus_library_status apus_nccl_load(apus_nccl_table *_Nonnull table, const char *_Nonnull names, char *_Nonnull text,
                                   size_t size);

#endif
