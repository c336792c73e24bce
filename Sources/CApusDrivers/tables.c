#include "CApusDrivers.h"

#define COUNT(symbols) (sizeof symbols / sizeof symbols[0])

const char *const apus_cuda_names = "libcuda.so.1";
const char *const apus_nvrtc_names = "libnvrtc.so.13 libnvrtc.so.12";
const char *const apus_cublaslt_names = "libcublasLt.so.13 libcublasLt.so.12";
const char *const apus_cudnn_names = "libcudnn.so.9";
const char *const apus_mpi_names = "libmpi.so.40";
const char *const apus_nccl_names = "libnccl.so.2";

static const char *const cuda_symbols[] = {APUS_CUDA_FUNCTIONS(APUS_FUNCTION_SYMBOL)};
static const char *const nvrtc_symbols[] = {APUS_NVRTC_FUNCTIONS(APUS_FUNCTION_SYMBOL) "nvrtcGetErrorString"};
static const char *const cublaslt_symbols[] = {
    APUS_CUBLASLT_FUNCTIONS(APUS_FUNCTION_SYMBOL) "cublasLtGetVersion", "cublasLtGetStatusName"};
static const char *const cudnn_symbols[] = {
    APUS_CUDNN_FUNCTIONS(APUS_FUNCTION_SYMBOL) "cudnnGetVersion", "cudnnGetErrorString", "cudnnGetLastErrorString"};
static const char *const mpi_symbols[] = {
    APUS_MPI_FUNCTIONS(APUS_FUNCTION_SYMBOL) "ompi_mpi_comm_world", "ompi_mpi_byte", "ompi_mpi_errors_return"};
static const char *const nccl_symbols[] = {
    APUS_NCCL_FUNCTIONS(APUS_FUNCTION_SYMBOL) "ncclGetErrorString", "ncclGetLastError"};

_Static_assert(sizeof(apus_cuda_table) == COUNT(cuda_symbols) * sizeof(void *), "one pointer for each symbol");
_Static_assert(sizeof(apus_nvrtc_table) == COUNT(nvrtc_symbols) * sizeof(void *), "one pointer for each symbol");
_Static_assert(sizeof(apus_cublaslt_table) == COUNT(cublaslt_symbols) * sizeof(void *), "one pointer for each symbol");
_Static_assert(sizeof(apus_cudnn_table) == COUNT(cudnn_symbols) * sizeof(void *), "one pointer for each symbol");
_Static_assert(sizeof(apus_mpi_table) == COUNT(mpi_symbols) * sizeof(void *), "one pointer for each symbol");
_Static_assert(sizeof(apus_nccl_table) == COUNT(nccl_symbols) * sizeof(void *), "one pointer for each symbol");

apus_library_status apus_cuda_load(apus_cuda_table *table, const char *names, char *text, size_t size)
{
    return apus_library_load(names, cuda_symbols, COUNT(cuda_symbols), table, text, size);
}

apus_library_status apus_nvrtc_load(apus_nvrtc_table *table, const char *names, char *text, size_t size)
{
    return apus_library_load(names, nvrtc_symbols, COUNT(nvrtc_symbols), table, text, size);
}

apus_library_status apus_cublaslt_load(apus_cublaslt_table *table, const char *names, char *text, size_t size)
{
    return apus_library_load(names, cublaslt_symbols, COUNT(cublaslt_symbols), table, text, size);
}

apus_library_status apus_cudnn_load(apus_cudnn_table *table, const char *names, char *text, size_t size)
{
    return apus_library_load(names, cudnn_symbols, COUNT(cudnn_symbols), table, text, size);
}

apus_library_status apus_mpi_load(apus_mpi_table *table, const char *names, char *text, size_t size)
{
    return apus_library_load_global(names, mpi_symbols, COUNT(mpi_symbols), table, text, size);
}

apus_library_status apus_nccl_load(apus_nccl_table *table, const char *names, char *text, size_t size)
{
    return apus_library_load(names, nccl_symbols, COUNT(nccl_symbols), table, text, size);
}
