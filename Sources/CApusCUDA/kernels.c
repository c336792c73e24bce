/* The kernels of Sources/ApusCUDA/Kernels as real files, embedded: the same bytes as a literal in Swift take seconds to
 * compile. A new file needs its lines here; a test compares the two lists. */
#include "CApusCUDA.h"

static const unsigned char activation_cu[] = {
#embed "../ApusCUDA/Kernels/activation.cu" suffix(, 0)
};
static const unsigned char adamw_cu[] = {
#embed "../ApusCUDA/Kernels/adamw.cu" suffix(, 0)
};
static const unsigned char attention_cuh[] = {
#embed "../ApusCUDA/Kernels/attention.cuh" suffix(, 0)
};
static const unsigned char attention_backward_cuh[] = {
#embed "../ApusCUDA/Kernels/attention_backward.cuh" suffix(, 0)
};
static const unsigned char attention_backward_bf16_cu[] = {
#embed "../ApusCUDA/Kernels/attention_backward_bf16.cu" suffix(, 0)
};
static const unsigned char attention_bf16_cu[] = {
#embed "../ApusCUDA/Kernels/attention_bf16.cu" suffix(, 0)
};
static const unsigned char attention_compact_bf16_cu[] = {
#embed "../ApusCUDA/Kernels/attention_compact_bf16.cu" suffix(, 0)
};
static const unsigned char attention_f32_cu[] = {
#embed "../ApusCUDA/Kernels/attention_f32.cu" suffix(, 0)
};
static const unsigned char attention_forward_cuh[] = {
#embed "../ApusCUDA/Kernels/attention_forward.cuh" suffix(, 0)
};
static const unsigned char attention_hopper_cuh[] = {
#embed "../ApusCUDA/Kernels/attention_hopper.cuh" suffix(, 0)
};
static const unsigned char attention_sm90a_cu[] = {
#embed "../ApusCUDA/Kernels/attention_sm90a.cu" suffix(, 0)
};
static const unsigned char attention_tiles_cuh[] = {
#embed "../ApusCUDA/Kernels/attention_tiles.cuh" suffix(, 0)
};
static const unsigned char block_sparse_cuh[] = {
#embed "../ApusCUDA/Kernels/block_sparse.cuh" suffix(, 0)
};
static const unsigned char block_sparse_any_cu[] = {
#embed "../ApusCUDA/Kernels/block_sparse_any.cu" suffix(, 0)
};
static const unsigned char block_sparse_bf16_cu[] = {
#embed "../ApusCUDA/Kernels/block_sparse_bf16.cu" suffix(, 0)
};
static const unsigned char block_sparse_sm90a_cu[] = {
#embed "../ApusCUDA/Kernels/block_sparse_sm90a.cu" suffix(, 0)
};
static const unsigned char block_topology_cu[] = {
#embed "../ApusCUDA/Kernels/block_topology.cu" suffix(, 0)
};
static const unsigned char capacity_cu[] = {
#embed "../ApusCUDA/Kernels/capacity.cu" suffix(, 0)
};
static const unsigned char choice_cuh[] = {
#embed "../ApusCUDA/Kernels/choice.cuh" suffix(, 0)
};
static const unsigned char clamp_cu[] = {
#embed "../ApusCUDA/Kernels/clamp.cu" suffix(, 0)
};
static const unsigned char cross_entropy_cu[] = {
#embed "../ApusCUDA/Kernels/cross_entropy.cu" suffix(, 0)
};
static const unsigned char decode_cu[] = {
#embed "../ApusCUDA/Kernels/decode.cu" suffix(, 0)
};
static const unsigned char distillation_cu[] = {
#embed "../ApusCUDA/Kernels/distillation.cu" suffix(, 0)
};
static const unsigned char elementwise_cu[] = {
#embed "../ApusCUDA/Kernels/elementwise.cu" suffix(, 0)
};
static const unsigned char embedding_cu[] = {
#embed "../ApusCUDA/Kernels/embedding.cu" suffix(, 0)
};
static const unsigned char expert_choice_cu[] = {
#embed "../ApusCUDA/Kernels/expert_choice.cu" suffix(, 0)
};
static const unsigned char expert_order_cuh[] = {
#embed "../ApusCUDA/Kernels/expert_order.cuh" suffix(, 0)
};
static const unsigned char experts_gradient_sm90a_cu[] = {
#embed "../ApusCUDA/Kernels/experts_gradient_sm90a.cu" suffix(, 0)
};
static const unsigned char experts_sm90a_cu[] = {
#embed "../ApusCUDA/Kernels/experts_sm90a.cu" suffix(, 0)
};
static const unsigned char gate_cu[] = {
#embed "../ApusCUDA/Kernels/gate.cu" suffix(, 0)
};
static const unsigned char grouped_bf16_cu[] = {
#embed "../ApusCUDA/Kernels/grouped_bf16.cu" suffix(, 0)
};
static const unsigned char grouped_bf16_cuh[] = {
#embed "../ApusCUDA/Kernels/grouped_bf16.cuh" suffix(, 0)
};
static const unsigned char grouped_bf16_128_cu[] = {
#embed "../ApusCUDA/Kernels/grouped_bf16_128.cu" suffix(, 0)
};
static const unsigned char grouped_f32_cu[] = {
#embed "../ApusCUDA/Kernels/grouped_f32.cu" suffix(, 0)
};
static const unsigned char grouped_sm90a_cu[] = {
#embed "../ApusCUDA/Kernels/grouped_sm90a.cu" suffix(, 0)
};
static const unsigned char grouped_tiles_cuh[] = {
#embed "../ApusCUDA/Kernels/grouped_tiles.cuh" suffix(, 0)
};
static const unsigned char hopper_cuh[] = {
#embed "../ApusCUDA/Kernels/hopper.cuh" suffix(, 0)
};
static const unsigned char hopper_tiles_cuh[] = {
#embed "../ApusCUDA/Kernels/hopper_tiles.cuh" suffix(, 0)
};
static const unsigned char layernorm_cu[] = {
#embed "../ApusCUDA/Kernels/layernorm.cu" suffix(, 0)
};
static const unsigned char matmul_bf16_cu[] = {
#embed "../ApusCUDA/Kernels/matmul_bf16.cu" suffix(, 0)
};
static const unsigned char matmul_f32_cu[] = {
#embed "../ApusCUDA/Kernels/matmul_f32.cu" suffix(, 0)
};
static const unsigned char mix_cu[] = {
#embed "../ApusCUDA/Kernels/mix.cu" suffix(, 0)
};
static const unsigned char mma_cuh[] = {
#embed "../ApusCUDA/Kernels/mma.cuh" suffix(, 0)
};
static const unsigned char parts_cu[] = {
#embed "../ApusCUDA/Kernels/parts.cu" suffix(, 0)
};
static const unsigned char permute_cu[] = {
#embed "../ApusCUDA/Kernels/permute.cu" suffix(, 0)
};
static const unsigned char philox_cuh[] = {
#embed "../ApusCUDA/Kernels/philox.cuh" suffix(, 0)
};
static const unsigned char product_bf16_cuh[] = {
#embed "../ApusCUDA/Kernels/product_bf16.cuh" suffix(, 0)
};
static const unsigned char product_f32_cuh[] = {
#embed "../ApusCUDA/Kernels/product_f32.cuh" suffix(, 0)
};
static const unsigned char random_cu[] = {
#embed "../ApusCUDA/Kernels/random.cu" suffix(, 0)
};
static const unsigned char reduce_cu[] = {
#embed "../ApusCUDA/Kernels/reduce.cu" suffix(, 0)
};
static const unsigned char reduce_cuh[] = {
#embed "../ApusCUDA/Kernels/reduce.cuh" suffix(, 0)
};
static const unsigned char rmsnorm_cu[] = {
#embed "../ApusCUDA/Kernels/rmsnorm.cu" suffix(, 0)
};
static const unsigned char rotary_cu[] = {
#embed "../ApusCUDA/Kernels/rotary.cu" suffix(, 0)
};
static const unsigned char router_cu[] = {
#embed "../ApusCUDA/Kernels/router.cu" suffix(, 0)
};
static const unsigned char router_loss_cu[] = {
#embed "../ApusCUDA/Kernels/router_loss.cu" suffix(, 0)
};
static const unsigned char row_moves_cuh[] = {
#embed "../ApusCUDA/Kernels/row_moves.cuh" suffix(, 0)
};
static const unsigned char rows_cu[] = {
#embed "../ApusCUDA/Kernels/rows.cu" suffix(, 0)
};
static const unsigned char short_convolution_cu[] = {
#embed "../ApusCUDA/Kernels/short_convolution.cu" suffix(, 0)
};
static const unsigned char swiglu_cu[] = {
#embed "../ApusCUDA/Kernels/swiglu.cu" suffix(, 0)
};
static const unsigned char types_cuh[] = {
#embed "../ApusCUDA/Kernels/types.cuh" suffix(, 0)
};

#define SOURCE(name, bytes) {name, (const char *)bytes, sizeof bytes - 1, 0}
#define HEADER(name, bytes) {name, (const char *)bytes, sizeof bytes - 1, 1}

static const apus_kernel_file files[] = {
    SOURCE("activation.cu", activation_cu),
    SOURCE("adamw.cu", adamw_cu),
    HEADER("attention.cuh", attention_cuh),
    HEADER("attention_backward.cuh", attention_backward_cuh),
    SOURCE("attention_backward_bf16.cu", attention_backward_bf16_cu),
    SOURCE("attention_bf16.cu", attention_bf16_cu),
    SOURCE("attention_compact_bf16.cu", attention_compact_bf16_cu),
    SOURCE("attention_f32.cu", attention_f32_cu),
    HEADER("attention_forward.cuh", attention_forward_cuh),
    HEADER("attention_hopper.cuh", attention_hopper_cuh),
    SOURCE("attention_sm90a.cu", attention_sm90a_cu),
    HEADER("attention_tiles.cuh", attention_tiles_cuh),
    HEADER("block_sparse.cuh", block_sparse_cuh),
    SOURCE("block_sparse_any.cu", block_sparse_any_cu),
    SOURCE("block_sparse_bf16.cu", block_sparse_bf16_cu),
    SOURCE("block_sparse_sm90a.cu", block_sparse_sm90a_cu),
    SOURCE("block_topology.cu", block_topology_cu),
    SOURCE("capacity.cu", capacity_cu),
    HEADER("choice.cuh", choice_cuh),
    SOURCE("clamp.cu", clamp_cu),
    SOURCE("cross_entropy.cu", cross_entropy_cu),
    SOURCE("decode.cu", decode_cu),
    SOURCE("distillation.cu", distillation_cu),
    SOURCE("elementwise.cu", elementwise_cu),
    SOURCE("embedding.cu", embedding_cu),
    SOURCE("expert_choice.cu", expert_choice_cu),
    HEADER("expert_order.cuh", expert_order_cuh),
    SOURCE("experts_gradient_sm90a.cu", experts_gradient_sm90a_cu),
    SOURCE("experts_sm90a.cu", experts_sm90a_cu),
    SOURCE("gate.cu", gate_cu),
    SOURCE("grouped_bf16.cu", grouped_bf16_cu),
    HEADER("grouped_bf16.cuh", grouped_bf16_cuh),
    SOURCE("grouped_bf16_128.cu", grouped_bf16_128_cu),
    SOURCE("grouped_f32.cu", grouped_f32_cu),
    SOURCE("grouped_sm90a.cu", grouped_sm90a_cu),
    HEADER("grouped_tiles.cuh", grouped_tiles_cuh),
    HEADER("hopper.cuh", hopper_cuh),
    HEADER("hopper_tiles.cuh", hopper_tiles_cuh),
    SOURCE("layernorm.cu", layernorm_cu),
    SOURCE("matmul_bf16.cu", matmul_bf16_cu),
    SOURCE("matmul_f32.cu", matmul_f32_cu),
    SOURCE("mix.cu", mix_cu),
    HEADER("mma.cuh", mma_cuh),
    SOURCE("parts.cu", parts_cu),
    SOURCE("permute.cu", permute_cu),
    HEADER("philox.cuh", philox_cuh),
    HEADER("product_bf16.cuh", product_bf16_cuh),
    HEADER("product_f32.cuh", product_f32_cuh),
    SOURCE("random.cu", random_cu),
    SOURCE("reduce.cu", reduce_cu),
    HEADER("reduce.cuh", reduce_cuh),
    SOURCE("rmsnorm.cu", rmsnorm_cu),
    SOURCE("rotary.cu", rotary_cu),
    SOURCE("router.cu", router_cu),
    SOURCE("router_loss.cu", router_loss_cu),
    HEADER("row_moves.cuh", row_moves_cuh),
    SOURCE("rows.cu", rows_cu),
    SOURCE("short_convolution.cu", short_convolution_cu),
    SOURCE("swiglu.cu", swiglu_cu),
    HEADER("types.cuh", types_cuh),
};

const apus_kernel_file *apus_kernel_files(size_t *count)
{
    *count = sizeof files / sizeof files[0];
    return files;
}
