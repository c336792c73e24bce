// Includes the file named by APUS_TEMPLATE once for f32 and once for bf16 activations. No include guard: used once a
// kernel file.

#define ELEMENT float
#define NAME(base) base##_f32
#define LOAD load_f32
#define STORE store_f32
#define TO_FLOAT(x) (x)
#define FROM_FLOAT(x) (x)
#define ELEMENT_IS_F32 1
#include APUS_TEMPLATE
#undef ELEMENT
#undef NAME
#undef LOAD
#undef STORE
#undef TO_FLOAT
#undef FROM_FLOAT
#undef ELEMENT_IS_F32

#define ELEMENT apus_bf16
#define NAME(base) base##_bf16
#define LOAD load_bf16
#define STORE store_bf16
#define TO_FLOAT(x) bf16_to_float(x)
#define FROM_FLOAT(x) bf16_from_float(x)
#define ELEMENT_IS_F32 0
#include APUS_TEMPLATE
#undef ELEMENT
#undef NAME
#undef LOAD
#undef STORE
#undef TO_FLOAT
#undef FROM_FLOAT
#undef ELEMENT_IS_F32
#undef APUS_TEMPLATE
