#pragma once
// What Hopper kernels are made of (sm_90a): barriers in shared memory, bulk tensor copies (TMA), and wgmma.
//
// Operands of wgmma lie in shared memory in rows of 128 bytes whose 16-byte chunks are swizzled by the row, as a tensor
// copy with 128-byte swizzle leaves them: panels of 64 elements, 1024-byte aligned.

#include "mma.cuh"

/// A tensor map as cuTensorMapEncodeTiled fills it; passed by value.
struct __align__(64) TensorMap {
    char opaque[128];
};

inline void barrier_init(u32 barrier, u32 count) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(count) : "memory");
}
inline void barrier_arrive(u32 barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
/// Arrives, and announces `bytes` that copies will bring.
inline void barrier_expect(u32 barrier, u32 bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}
inline void barrier_wait(u32 barrier, u32 parity) {
    asm volatile("{\n.reg .pred done;\n"
                 "wait:\nmbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n@done bra over;\nbra wait;\nover:\n}"
                 ::"r"(barrier), "r"(parity) : "memory");
}
/// What threads wrote to shared memory becomes visible to the copy engine and the tensor cores.
inline void fence_async() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
/// Waits for `count` threads that name the same barrier.
inline void named_barrier(int id, int count) { asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(count) : "memory"); }

/// Starts copying the box of a map at (column, row) to shared memory; its bytes arrive at `barrier`.
inline void copy_box(u32 to, const TensorMap &map, i32 column, i32 row, u32 barrier) {
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%2, %3}], [%4];" ::"r"(to), "l"(&map), "r"(column), "r"(row), "r"(barrier) : "memory");
}
/// The same from a plane of a stack of matrices.
inline void copy_box(u32 to, const TensorMap &map, i32 column, i32 row, i32 plane, u32 barrier) {
    asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%2, %3, %4}], [%5];"
                 ::"r"(to), "l"(&map), "r"(column), "r"(row), "r"(plane), "r"(barrier) : "memory");
}
/// Brings a box of a plane to L2 and no further.
inline void prefetch_box(const TensorMap &map, i32 column, i32 row, i32 plane) {
    asm volatile("cp.async.bulk.prefetch.tensor.3d.L2.global.tile [%0, {%1, %2, %3}];"
                 ::"l"(&map), "r"(column), "r"(row), "r"(plane) : "memory");
}
/// Starts copying 16 bytes to shared memory, or writing zeros there if not `exists`.
inline void copy_chunk(u32 to, const void *from, bool exists) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(exists ? 16 : 0) : "memory");
}
/// Arrives when all chunks that this thread has started to copy are there; one of those that the barrier was made for.
inline void arrive_with_chunks(u32 barrier) {
    asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(barrier) : "memory");
}

/// Starts writing a box from shared memory; what lies outside the tensor is left out.
inline void store_box(const TensorMap &map, i32 column, i32 row, u32 from) {
    asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%1, %2}], [%3];"
                 ::"l"(&map), "r"(column), "r"(row), "r"(from) : "memory");
    asm volatile("cp.async.bulk.commit_group;" ::: "memory");
}
/// The same into a plane of a stack of matrices.
inline void store_box(const TensorMap &map, i32 column, i32 row, i32 plane, u32 from) {
    asm volatile("cp.async.bulk.tensor.3d.global.shared::cta.bulk_group [%0, {%1, %2, %3}], [%4];"
                 ::"l"(&map), "r"(column), "r"(row), "r"(plane), "r"(from) : "memory");
    asm volatile("cp.async.bulk.commit_group;" ::: "memory");
}
/// Starts adding a box from shared memory to what the tensor holds; one rounding, and no order among different
/// elements.
inline void add_box(const TensorMap &map, i32 column, i32 row, i32 plane, u32 from) {
    asm volatile("cp.reduce.async.bulk.tensor.3d.global.shared::cta.add.tile.bulk_group [%0, {%1, %2, %3}], [%4];"
                 ::"l"(&map), "r"(column), "r"(row), "r"(plane), "r"(from) : "memory");
    asm volatile("cp.async.bulk.commit_group;" ::: "memory");
}
/// Waits until all but `pending` stores of this thread have read their shared memory.
template <int pending> inline void wait_stores() {
    asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(pending) : "memory");
}

inline void store_matrices(u32 address, u32 a, u32 b, u32 c, u32 d) {
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};"
                 ::"r"(address), "r"(a), "r"(b), "r"(c), "r"(d) : "memory");
}

/// Each matrix transposed: an address gets a column.
inline void store_transposed(u32 address, u32 a, u32 b, u32 c, u32 d) {
    asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};"
                 ::"r"(address), "r"(a), "r"(b), "r"(c), "r"(d) : "memory");
}

inline void multiply_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
inline void multiply_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int pending> inline void multiply_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(pending) : "memory");
}

/// Describes an operand: `panel` bytes to the next 64 m or n (mn-major only), `step` to the next 8 rows.
inline u64 describe(u32 address, u32 panel, u32 step) {
    return (u64)(address & 0x3FFFF) >> 4 | (u64)(panel >> 4) << 16 | (u64)(step >> 4) << 32 | 1ull << 62;
}

#define D(i) "+f"(d[i])

/// d (64, 256) += a (64, 16) b (16, 256) from shared memory; d = a b with `adds` 0. The flags say that an operand is
/// mn-major.
template <int a_mn, int b_mn> inline void multiply_async(float (&d)[128], u64 a, u64 b, int adds) {
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %130, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {"
                 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
                 "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
                 "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "
                 "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "
                 "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "
                 "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, "
                 "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127}, "
                 "%128, %129, p, 1, 1, %131, %132;\n}"
                 :
                 D(0), D(1), D(2), D(3), D(4), D(5), D(6), D(7),
                 D(8), D(9), D(10), D(11), D(12), D(13), D(14), D(15),
                 D(16), D(17), D(18), D(19), D(20), D(21), D(22), D(23),
                 D(24), D(25), D(26), D(27), D(28), D(29), D(30), D(31),
                 D(32), D(33), D(34), D(35), D(36), D(37), D(38), D(39),
                 D(40), D(41), D(42), D(43), D(44), D(45), D(46), D(47),
                 D(48), D(49), D(50), D(51), D(52), D(53), D(54), D(55),
                 D(56), D(57), D(58), D(59), D(60), D(61), D(62), D(63),
                 D(64), D(65), D(66), D(67), D(68), D(69), D(70), D(71),
                 D(72), D(73), D(74), D(75), D(76), D(77), D(78), D(79),
                 D(80), D(81), D(82), D(83), D(84), D(85), D(86), D(87),
                 D(88), D(89), D(90), D(91), D(92), D(93), D(94), D(95),
                 D(96), D(97), D(98), D(99), D(100), D(101), D(102), D(103),
                 D(104), D(105), D(106), D(107), D(108), D(109), D(110), D(111),
                 D(112), D(113), D(114), D(115), D(116), D(117), D(118), D(119),
                 D(120), D(121), D(122), D(123), D(124), D(125), D(126), D(127)
                 : "l"(a), "l"(b), "r"(adds), "n"(a_mn), "n"(b_mn));
}

#undef D
