#pragma once
// What tensor-core kernels are made of, sm_80 and later: asynchronous copies to shared memory, ldmatrix and mma.sync
// for bf16 with f32 sums.
//
// Fragments of m16n8k16, with g = lane / 4 and t = 2 * (lane % 4): a holds rows g, g + 8 at k t, t + 1, then both at k
// + 8; b holds k t, t + 1 and k + 8 of column g; c holds columns t, t + 1 of rows g and g + 8. So two neighbouring c
// tiles, rounded to pairs, are an a fragment: probabilities never leave registers.

#include "types.cuh"

inline u32 shared_address(const void *p) { return (u32)__cvta_generic_to_shared(p); }

/// Copies 16 bytes, of which `bytes` come from memory and the rest is 0.
inline void copy_async(u32 to, const void *from, u32 bytes) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
}
inline void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int pending> inline void wait_copies() { asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory"); }

inline void load_matrices(u32 (&m)[4], u32 address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3]) : "r"(address) : "memory");
}
inline void load_transposed(u32 (&m)[4], u32 address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3]) : "r"(address) : "memory");
}

/// c (16, 8) += a (16, 16) b (16, 8).
inline void multiply_add(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/// Brings a chunk of 8 elements at `from` to shared memory: the first `left`, the others 0; by element if not `vector`.
inline void copy_chunk(u32 to, const bf16 *from, i64 left, bool vector) {
    const u32 bytes = left <= 0 ? 0 : left >= 8 ? 16 : (u32)left * 2;
    if (vector) {
        copy_async(to, from, bytes);
        return;
    }
    u32 words[4];
#pragma unroll
    for (int w = 0; w < 4; ++w) {
        const u32 low = 2 * w < left ? from[2 * w].bits : 0, high = 2 * w + 1 < left ? from[2 * w + 1].bits : 0;
        words[w] = low | high << 16;
    }
    asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(words[0]), "r"(words[1]), "r"(words[2]),
                 "r"(words[3]) : "memory");
}
