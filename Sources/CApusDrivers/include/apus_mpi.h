#ifndef APUS_MPI_H
#define APUS_MPI_H

#include <stddef.h>

#include "apus_library.h"

/* Open MPI, messages between processes (MPI 3.1 standard; the binary interface of Open MPI 4 and 5, file libmpi.so.40).
 * Other MPIs (MPICH and its relatives) have the same functions with handles that are integers: the file's name and the
 * version text keep them out. A function returns a code, 0 for success. Everything is sent as bytes. */

typedef struct apus_mpi_communicator_object *apus_mpi_communicator;
typedef struct apus_mpi_datatype_object *apus_mpi_datatype;
typedef struct apus_mpi_request_object *apus_mpi_request;
typedef struct apus_mpi_handler_object *apus_mpi_handler;

/* What became of a message (MPI_Status); what is reserved is the library's own. */
typedef struct {
    int source;
    int tag;
    int error;
    int reserved_flag;
    size_t reserved_count;
} apus_mpi_status;

/* Codes (MPI_ERR_...) and values of arguments. */
#define APUS_MPI_SUCCESS 0
#define APUS_MPI_TRUNCATED 15
#define APUS_MPI_IN_STATUS 18
#define APUS_MPI_LARGEST_TAG 0
/* Only the thread that initialised MPI calls it (MPI_THREAD_FUNNELED). */
#define APUS_MPI_ONE_THREAD_CALLS 1
#define APUS_MPI_ERROR_TEXT_SIZE 512
#define APUS_MPI_VERSION_TEXT_SIZE 8192

#define APUS_MPI_FUNCTIONS(F)                                                                                          \
    F(version_text, MPI_Get_library_version, (char *_Nonnull text, int *_Nonnull length))                              \
    F(error_text, MPI_Error_string, (int code, char *_Nonnull text, int *_Nonnull length))                             \
    F(initialize, MPI_Init_thread,                                                                                     \
      (int *_Nullable argc, char *_Nullable *_Nullable *_Nullable argv, int wanted, int *_Nonnull provided))           \
    F(finalize, MPI_Finalize, (void))                                                                                  \
    F(rank, MPI_Comm_rank, (apus_mpi_communicator _Nonnull communicator, int *_Nonnull rank))                          \
    F(size, MPI_Comm_size, (apus_mpi_communicator _Nonnull communicator, int *_Nonnull size))                          \
    F(duplicate, MPI_Comm_dup,                                                                                         \
      (apus_mpi_communicator _Nonnull communicator, apus_mpi_communicator _Nullable *_Nonnull copy))                   \
    F(attribute, MPI_Comm_get_attr,                                                                                    \
      (apus_mpi_communicator _Nonnull communicator, int key, void *_Nonnull value, int *_Nonnull flag))                \
    F(set_handler, MPI_Comm_set_errhandler,                                                                            \
      (apus_mpi_communicator _Nonnull communicator, apus_mpi_handler _Nonnull handler))                                \
    F(broadcast, MPI_Bcast,                                                                                            \
      (void *_Nullable buffer, int count, apus_mpi_datatype _Nonnull type, int root,                                   \
       apus_mpi_communicator _Nonnull communicator))                                                                   \
    F(send, MPI_Isend,                                                                                                 \
      (const void *_Nullable buffer, int count, apus_mpi_datatype _Nonnull type, int target, int tag,                  \
       apus_mpi_communicator _Nonnull communicator, apus_mpi_request _Nullable *_Nonnull request))                     \
    F(receive, MPI_Irecv,                                                                                              \
      (void *_Nullable buffer, int count, apus_mpi_datatype _Nonnull type, int source, int tag,                        \
       apus_mpi_communicator _Nonnull communicator, apus_mpi_request _Nullable *_Nonnull request))                     \
    F(received, MPI_Get_count,                                                                                         \
      (const apus_mpi_status *_Nonnull status, apus_mpi_datatype _Nonnull type, int *_Nonnull count))                  \
    F(test_some, MPI_Testsome,                                                                                         \
      (int count, apus_mpi_request _Nullable *_Nonnull requests, int *_Nonnull completed, int *_Nonnull indices,       \
       apus_mpi_status *_Nonnull statuses))

typedef struct {
    APUS_MPI_FUNCTIONS(APUS_FUNCTION_FIELD)
    /* Handles are addresses of the library's own objects: all ranks; single bytes; return codes instead of ending the
     * process. */
    apus_mpi_communicator _Nonnull world;
    apus_mpi_datatype _Nonnull byte;
    apus_mpi_handler _Nonnull errors_return;
} apus_mpi_table;

/* The file names by which it is looked for. */
extern const char *_Nonnull const apus_mpi_names;

/* Fills the table from the first of `names`, whose symbols the library's own plug-ins see; see apus_library_load. */
apus_library_status apus_mpi_load(apus_mpi_table *_Nonnull table, const char *_Nonnull names, char *_Nonnull text,
                                  size_t size);

#endif
