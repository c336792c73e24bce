#ifndef APUS_CUDNN_H
#define APUS_CUDNN_H

#include <stddef.h>
#include <stdint.h>

#include "apus_cuda.h"
#include "apus_library.h"

/* cuDNN, attention (Backend API of cuDNN's documentation, as of version 9.11): a computation is a graph of operations over
 * tensors, all of them descriptors with attributes, and the library looks for a fused kernel for the whole. Codes: 0 for
 * success, from 3000 to 3999 where the library has no kernel. */

typedef struct apus_dnn_handle_object *apus_dnn_handle;
typedef struct apus_dnn_descriptor_object *apus_dnn_descriptor;

/* Kinds of descriptors (cudnnBackendDescriptorType_t). */
#define APUS_DNN_POINTWISE 0
#define APUS_DNN_ENGINE_CONFIGURATION 3
#define APUS_DNN_HEURISTICS 4
#define APUS_DNN_PLAN 5
#define APUS_DNN_POINTWISE_OPERATION 13
#define APUS_DNN_GRAPH 15
#define APUS_DNN_VARIANT_PACK 16
#define APUS_DNN_TENSOR 17
#define APUS_DNN_PRODUCT 18
#define APUS_DNN_PRODUCT_OPERATION 19
#define APUS_DNN_REDUCTION 21
#define APUS_DNN_REDUCTION_OPERATION 22
#define APUS_DNN_RESHAPE_OPERATION 31

/* Attributes (cudnnBackendAttributeName_t), by the descriptor that has them. */
#define APUS_DNN_POINTWISE_MODE 0
#define APUS_DNN_POINTWISE_COMPUTE_TYPE 1
#define APUS_DNN_POINTWISE_AXIS 9
#define APUS_DNN_HEURISTICS_MODE 200
#define APUS_DNN_HEURISTICS_GRAPH 201
#define APUS_DNN_HEURISTICS_RESULTS 202
#define APUS_DNN_PLAN_HANDLE 400
#define APUS_DNN_PLAN_CONFIGURATION 401
#define APUS_DNN_PLAN_WORKSPACE_BYTES 402
#define APUS_DNN_PLAN_TEXT 405
#define APUS_DNN_POINTWISE_OPERATION_KIND 750
#define APUS_DNN_POINTWISE_OPERATION_X 751
#define APUS_DNN_POINTWISE_OPERATION_B 752
#define APUS_DNN_POINTWISE_OPERATION_Y 753
#define APUS_DNN_POINTWISE_OPERATION_T 758
#define APUS_DNN_GRAPH_HANDLE 800
#define APUS_DNN_GRAPH_OPERATIONS 801
#define APUS_DNN_TENSOR_ALIGNMENT 900
#define APUS_DNN_TENSOR_TYPE 901
#define APUS_DNN_TENSOR_EXTENTS 902
#define APUS_DNN_TENSOR_STRIDES 903
#define APUS_DNN_TENSOR_ID 906
#define APUS_DNN_TENSOR_IS_VIRTUAL 907
#define APUS_DNN_TENSOR_IS_BY_VALUE 908
#define APUS_DNN_VARIANT_PACK_IDS 1000
#define APUS_DNN_VARIANT_PACK_ADDRESSES 1001
#define APUS_DNN_VARIANT_PACK_WORKSPACE 1003
#define APUS_DNN_PRODUCT_COMPUTE_TYPE 1500
#define APUS_DNN_PRODUCT_OPERATION_A 1520
#define APUS_DNN_PRODUCT_OPERATION_B 1521
#define APUS_DNN_PRODUCT_OPERATION_C 1522
#define APUS_DNN_PRODUCT_OPERATION_KIND 1523
#define APUS_DNN_PRODUCT_OPERATION_M 1525
#define APUS_DNN_PRODUCT_OPERATION_N 1526
#define APUS_DNN_PRODUCT_OPERATION_K 1527
#define APUS_DNN_REDUCTION_OPERATOR 1600
#define APUS_DNN_REDUCTION_COMPUTE_TYPE 1601
#define APUS_DNN_REDUCTION_OPERATION_X 1610
#define APUS_DNN_REDUCTION_OPERATION_Y 1611
#define APUS_DNN_REDUCTION_OPERATION_KIND 1612
#define APUS_DNN_RESHAPE_OPERATION_X 2200
#define APUS_DNN_RESHAPE_OPERATION_Y 2201

/* Types of an attribute's values (cudnnBackendAttributeType_t). */
#define APUS_DNN_VALUE_HANDLE 0
#define APUS_DNN_VALUE_ELEMENT_TYPE 1
#define APUS_DNN_VALUE_BOOLEAN 2
#define APUS_DNN_VALUE_I64 3
#define APUS_DNN_VALUE_POINTER 6
#define APUS_DNN_VALUE_HEURISTICS_MODE 8
#define APUS_DNN_VALUE_POINTWISE_MODE 14
#define APUS_DNN_VALUE_DESCRIPTOR 15
#define APUS_DNN_VALUE_REDUCTION_OPERATOR 18
#define APUS_DNN_VALUE_CHARACTERS 24

/* Element types (cudnnDataType_t). */
#define APUS_DNN_F32 0
#define APUS_DNN_I32 4
#define APUS_DNN_BF16 9
#define APUS_DNN_BOOLEAN 11

/* Element-wise operations (cudnnPointwiseMode_t); INDEX is an element's place along an axis, SELECT takes x where t holds and
 * b elsewhere. */
#define APUS_DNN_ADD 0
#define APUS_DNN_MULTIPLY 1
#define APUS_DNN_DIVIDE 6
#define APUS_DNN_SUBTRACT 9
#define APUS_DNN_EXP 13
#define APUS_DNN_LOG 15
#define APUS_DNN_IDENTITY 21
#define APUS_DNN_AT_LEAST 303
#define APUS_DNN_LESS 304
#define APUS_DNN_AND 400
#define APUS_DNN_INDEX 501
#define APUS_DNN_SELECT 601

/* Reductions (cudnnReduceTensorOp_t), and how kernels are looked for (cudnnBackendHeurMode_t). */
#define APUS_DNN_REDUCE_ADD 0
#define APUS_DNN_REDUCE_MAX 3
#define APUS_DNN_HEURISTICS_A 3

/* Codes. */
#define APUS_DNN_NOT_SUPPORTED 3000
#define APUS_DNN_NOT_SUPPORTED_END 4000

#define APUS_CUDNN_FUNCTIONS(F)                                                                                        \
    F(create, cudnnCreate, (apus_dnn_handle _Nullable *_Nonnull handle))                                               \
    F(destroy, cudnnDestroy, (apus_dnn_handle _Nonnull handle))                                                        \
    F(set_stream, cudnnSetStream, (apus_dnn_handle _Nonnull handle, apus_cu_stream _Nullable stream))                  \
    F(descriptor_create, cudnnBackendCreateDescriptor,                                                                 \
      (int kind, apus_dnn_descriptor _Nullable *_Nonnull descriptor))                                                  \
    F(descriptor_destroy, cudnnBackendDestroyDescriptor, (apus_dnn_descriptor _Nonnull descriptor))                    \
    F(descriptor_finish, cudnnBackendFinalize, (apus_dnn_descriptor _Nonnull descriptor))                              \
    F(descriptor_set, cudnnBackendSetAttribute,                                                                        \
      (apus_dnn_descriptor _Nonnull descriptor, int attribute, int type, int64_t count, const void *_Nonnull values))  \
    F(descriptor_get, cudnnBackendGetAttribute,                                                                        \
      (apus_dnn_descriptor _Nonnull descriptor, int attribute, int type, int64_t wanted, int64_t *_Nullable count,     \
       void *_Nullable values))                                                                                        \
    F(execute, cudnnBackendExecute,                                                                                    \
      (apus_dnn_handle _Nonnull handle, apus_dnn_descriptor _Nonnull plan, apus_dnn_descriptor _Nonnull pack))

typedef struct {
    APUS_CUDNN_FUNCTIONS(APUS_FUNCTION_FIELD)
    /* 10000 times the major version and 100 times the minor one: 91400 is 9.14.0. Behind the others, because these return no
     * code. */
    size_t (*_Nonnull version)(void);
    const char *_Nonnull (*_Nonnull error_name)(int code);
    /* The library's own words on the last failure of this thread. */
    void (*_Nonnull last_error)(char *_Nonnull text, size_t size);
} apus_cudnn_table;

/* The file names by which it is looked for. */
extern const char *_Nonnull const apus_cudnn_names;

/* Fills the table from the first of `names`; see apus_library_load. */
apus_library_status apus_cudnn_load(apus_cudnn_table *_Nonnull table, const char *_Nonnull names, char *_Nonnull text,
                                    size_t size);

#endif
