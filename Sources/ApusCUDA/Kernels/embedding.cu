// The gradient of an embedding, in the order of the tokens and without float atomics. See Ops/Embedding.swift. The
// look-up is `gather_rows` of rows.cu.
//
// Positions are sorted by (id, position): the place of a position is the number of positions before it in that order,
// and counting them by brute force is T^2 integer comparisons (0.1 ms for T = 32,768 on an H100), less than sorting by
// digits costs until T is far larger. Then each id's rows are summed in order by one block per 512 columns. The floor
// is reading dy (T, D) once and reading and writing the gradient's rows that occur.

#include "reduce.cuh"

constexpr int tile = 1024;

/// place[t] += the positions s of one run of positions with (tokens[s], s) < (tokens[t], t). Launch: (T / 256, T /
/// 4096) blocks rounded up, 256 threads; `place` (T) starts at 0. Integer additions have no order.
extern "C" __global__ void embedding_places(i32 *place, const i32 *tokens, i64 count) {
    __shared__ i32 ids[tile];
    const i64 t = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    const i32 mine = t < count ? tokens[t] : 0;
    const i64 run_end = min(count, (blockIdx.y + 1) * 4096LL);
    i32 before = 0;
    for (i64 first = blockIdx.y * 4096LL; first < run_end; first += tile) {
        const int size = (int)min(run_end - first, (i64)tile);
        __syncthreads();
        for (int i = threadIdx.x; i < size; i += blockDim.x) ids[i] = tokens[first + i];
        __syncthreads();
        // Ids of earlier positions count when they are equal, those of later ones do not.
        const int earlier = (int)max(min(t - first, (i64)size), 0LL);
        for (int i = 0; i < earlier; ++i) before += ids[i] <= mine;
        for (int i = earlier; i < size; ++i) before += ids[i] < mine;
    }
    if (t < count && before > 0) atomicAdd(place + t, before);
}

/// order[place[t]] = t. Launch: T / 256 blocks rounded up, 256 threads.
extern "C" __global__ void embedding_order(i32 *order, const i32 *place, i64 count) {
    const i64 t = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (t < count) order[place[t]] = (i32)t;
}

/// gradient[id] += the rows of dy whose token is `id`, in order. Launch: (T, D / 512) blocks rounded up, 64 threads. A
/// block works if its place is the first of an id; negative ids are skipped.
template <class Y, class T>
inline void embedding_backward(
    Y *gradient, i64 gradient_stride, const T *dy, i64 dy_stride, const i32 *tokens, const i32 *order, i64 count,
    i64 width) {
    const i64 first = blockIdx.x;
    const i32 id = tokens[order[first]];
    if (id < 0 || (first > 0 && tokens[order[first - 1]] == id)) return;
    const i64 i = ((i64)blockIdx.y * blockDim.x + threadIdx.x) * lanes, left = width - i;
    if (left <= 0) return;
    Y *out = gradient + id * gradient_stride + i;
    const bool vector = is_aligned(gradient, gradient_stride) && is_aligned(dy, dy_stride);
    Lanes sum;
    load(sum, out, left, vector);
    for (i64 p = first; p < count; ++p) {
        const i64 t = order[p];
        if (tokens[t] != id) break;
        Lanes u;
        load(u, dy + t * dy_stride + i, left, vector);
        each(sum, [&](int l) { return sum.x[l] + u.x[l]; });
    }
    store(out, sum, left, vector);
}

/// Named by the types of dy and of the gradient.
#define DEFINE(suffix, T, Y)                                                                                           \
    extern "C" __global__ void embedding_backward_##suffix(                                                            \
        Y *gradient, i64 gradient_stride, const T *dy, i64 dy_stride, const i32 *tokens, const i32 *order, i64 count,  \
        i64 width) {                                                                                                   \
        embedding_backward(gradient, gradient_stride, dy, dy_stride, tokens, order, count, width);                     \
    }
DEFINE(f32_f32, float, float)
DEFINE(bf16_f32, bf16, float)
DEFINE(f32_bf16, float, bf16)
DEFINE(bf16_bf16, bf16, bf16)
