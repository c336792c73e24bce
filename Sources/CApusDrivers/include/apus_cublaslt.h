#ifndef APUS_CUBLASLT_H
#define APUS_CUBLASLT_H

#include <stddef.h>
#include <stdint.h>

#include "apus_cuda.h"
#include "apus_library.h"

/* cuBLASLt, matrix products (cuBLAS documentation, as of version 12.0). Codes: 0 for success. Matrices are stored by
 * columns. */

typedef struct apus_blas_handle_object *apus_blas_handle;
typedef struct apus_blas_product_object *apus_blas_product;
typedef struct apus_blas_layout_object *apus_blas_layout;
typedef struct apus_blas_preference_object *apus_blas_preference;

/* A chosen algorithm; the library's own business (cublasLtMatmulAlgo_t). */
typedef struct {
    uint64_t data[8];
} apus_blas_algorithm;

/* What the library found for a problem (cublasLtMatmulHeuristicResult_t). */
typedef struct {
    apus_blas_algorithm algorithm;
    size_t workspace_bytes;
    int status;
    float waves;
    int reserved[4];
} apus_blas_choice;

/* Element types (cudaDataType) and the type that sums run in (cublasComputeType_t): plain f32, never TF32. */
#define APUS_BLAS_F32 0
#define APUS_BLAS_BF16 14
#define APUS_BLAS_COMPUTE_F32 68

/* Attributes of a product, their values 32-bit integers; the bias is an address on the device. */
#define APUS_BLAS_PRODUCT_TRANSPOSE_A 3
#define APUS_BLAS_PRODUCT_TRANSPOSE_B 4
#define APUS_BLAS_PRODUCT_EPILOGUE 7
#define APUS_BLAS_PRODUCT_BIAS 8
#define APUS_BLAS_TRANSPOSED 1
/* One element for each row of the result, of the result's type, is added to the whole row. */
#define APUS_BLAS_EPILOGUE_BIAS 4

/* Attributes of a preference: 64-bit bytes of workspace, a 32-bit mask of the ways in which parts of a sum may be brought
 * together, 32-bit bytes of alignment of each matrix. */
#define APUS_BLAS_PREFERENCE_WORKSPACE_BYTES 1
#define APUS_BLAS_PREFERENCE_REDUCTIONS 3
#define APUS_BLAS_PREFERENCE_ALIGNMENT_A 5
#define APUS_BLAS_PREFERENCE_ALIGNMENT_B 6
#define APUS_BLAS_PREFERENCE_ALIGNMENT_C 7
#define APUS_BLAS_PREFERENCE_ALIGNMENT_D 8
/* Parts of a sum stay in the type that sums run in until the last is added. */
#define APUS_BLAS_REDUCTION_COMPUTE_TYPE 2

#define APUS_CUBLASLT_FUNCTIONS(F)                                                                                     \
    F(create, cublasLtCreate, (apus_blas_handle _Nullable *_Nonnull handle))                                           \
    F(destroy, cublasLtDestroy, (apus_blas_handle _Nonnull handle))                                                    \
    F(product_create, cublasLtMatmulDescCreate,                                                                        \
      (apus_blas_product _Nullable *_Nonnull product, int compute_type, int scale_type))                               \
    F(product_destroy, cublasLtMatmulDescDestroy, (apus_blas_product _Nonnull product))                                \
    F(product_set, cublasLtMatmulDescSetAttribute,                                                                     \
      (apus_blas_product _Nonnull product, int attribute, const void *_Nonnull value, size_t size))                    \
    F(layout_create, cublasLtMatrixLayoutCreate,                                                                       \
      (apus_blas_layout _Nullable *_Nonnull layout, int type, uint64_t rows, uint64_t columns, int64_t stride))        \
    F(layout_destroy, cublasLtMatrixLayoutDestroy, (apus_blas_layout _Nonnull layout))                                 \
    F(preference_create, cublasLtMatmulPreferenceCreate, (apus_blas_preference _Nullable *_Nonnull preference))        \
    F(preference_destroy, cublasLtMatmulPreferenceDestroy, (apus_blas_preference _Nonnull preference))                 \
    F(preference_set, cublasLtMatmulPreferenceSetAttribute,                                                            \
      (apus_blas_preference _Nonnull preference, int attribute, const void *_Nonnull value, size_t size))              \
    F(choose, cublasLtMatmulAlgoGetHeuristic,                                                                          \
      (apus_blas_handle _Nonnull handle, apus_blas_product _Nonnull product, apus_blas_layout _Nonnull a,              \
       apus_blas_layout _Nonnull b, apus_blas_layout _Nonnull c, apus_blas_layout _Nonnull d,                          \
       apus_blas_preference _Nonnull preference, int wanted, apus_blas_choice *_Nonnull choices,                       \
       int *_Nonnull found))                                                                                           \
    F(multiply, cublasLtMatmul,                                                                                        \
      (apus_blas_handle _Nonnull handle, apus_blas_product _Nonnull product, const void *_Nonnull alpha,               \
       const void *_Nonnull a, apus_blas_layout _Nonnull a_layout, const void *_Nonnull b,                             \
       apus_blas_layout _Nonnull b_layout, const void *_Nonnull beta, const void *_Nonnull c,                          \
       apus_blas_layout _Nonnull c_layout, void *_Nonnull d, apus_blas_layout _Nonnull d_layout,                       \
       const apus_blas_algorithm *_Nonnull algorithm, void *_Nullable workspace, size_t workspace_bytes,               \
       apus_cu_stream _Nonnull stream))

typedef struct {
    APUS_CUBLASLT_FUNCTIONS(APUS_FUNCTION_FIELD)
    /* The version, 1000 times the major one and so on: 130000 is 13.0.0. Behind the others, because it returns no code. */
    size_t (*_Nonnull version)(void);
    const char *_Nonnull (*_Nonnull error_name)(int code);
} apus_cublaslt_table;

/* The file names by which it is looked for, the newest first. */
extern const char *_Nonnull const apus_cublaslt_names;

/* Fills the table from the first of `names`; see apus_library_load. */
apus_library_status apus_cublaslt_load(apus_cublaslt_table *_Nonnull table, const char *_Nonnull names,
                                       char *_Nonnull text, size_t size);

#endif
