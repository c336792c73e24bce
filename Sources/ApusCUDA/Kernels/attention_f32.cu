// Attention in plain f32, forward and backward, as attention_bf16.cu and attention_backward_bf16.cu have it in bf16.
//
// One pattern three times: a warp owns 4 rows (query rows, or keys for dk and dv) and walks the other side in tiles of
// 32 kept in shared memory. For the dot products a lane has one row of the tile, for the sums every 32nd column of the
// result, and the 32 weights between go from lane to lane. 4 owned rows share each read of the tile. The adders' rate
// is the floor, 4 H operations a visible pair forward and 14 H backward; shared reads keep it near a third of that.
//
// Launch, 256 threads (8 warps, 32 rows), for dq, dk and dv 128 (16 rows) where 32 would need more shared memory than
// there is: 64 * (H + 4) floats for the tile and 2 * rows * H for what is owned, forward 32 * H. `attention_f32` and
// `attention_query_gradient_f32`: (ceil(T / floor(rows / G)) + S, Hk) blocks, G at most `rows`;
// `attention_key_gradient_f32`: (ceil(keys / rows) + S, Hk) blocks, G at most 32; `attention_delta_f32`: "warps" for
// T * Hq rows.

#include "attention.cuh"

constexpr int warp_rows = 4, block_rows = 32, tile_rows = 32, most_columns = 8;

/// Rows that a block of the gradients' kernels owns.
inline int owned_rows() { return (int)blockDim.x / 32 * warp_rows; }

/// Shared memory of a block: two tiles of 32 rows and two sets of owned rows.
struct Memory {
    float *first_tile, *second_tile, *first_owned, *second_owned;
    int pitch, width;

    Memory(float *at, i64 width, int block_rows) : pitch((int)width + 4), width((int)width) {
        first_tile = at;
        second_tile = first_tile + tile_rows * pitch;
        first_owned = second_tile + tile_rows * pitch;
        second_owned = first_owned + block_rows * this->width;
    }

    /// Copies `rows` rows whose address `source` gives, null for zeros.
    template <class Source> void copy(float *to, int pitch, int rows, Source source) const {
        for (int i = threadIdx.x; i < rows * width; i += blockDim.x) {
            const int row = i / width, column = i - row * width;
            const float *from = source(row);
            to[row * pitch + column] = from ? from[column] : 0.0f;
        }
    }

    /// dots[r] = the product of the warp's owned row r with this lane's row of the tile.
    void multiply(float (&dots)[warp_rows], const float *owned, const float *tile) const {
        const float *mine = tile + threadIdx.x % 32 * pitch, *rows = owned + threadIdx.x / 32 * warp_rows * width;
#pragma unroll
        for (int r = 0; r < warp_rows; ++r) dots[r] = 0;
#pragma unroll 4
        for (int i = 0; i < width; ++i) {
#pragma unroll
            for (int r = 0; r < warp_rows; ++r) dots[r] += rows[r * width + i] * mine[i];
        }
    }

    /// sums[r][c] += the weight of each of the tile's rows times its column lane + 32 c.
    void add(float (&sums)[warp_rows][most_columns], const float (&weights)[warp_rows], const float *tile) const {
        for (int row = 0; row < tile_rows; ++row) {
            float weight[warp_rows];
#pragma unroll
            for (int r = 0; r < warp_rows; ++r) weight[r] = __shfl_sync(all_lanes, weights[r], row);
#pragma unroll
            for (int c = 0; c < most_columns; ++c) {
                const int column = threadIdx.x % 32 + 32 * c;
                if (column >= width) break;
                const float value = tile[row * pitch + column];
#pragma unroll
                for (int r = 0; r < warp_rows; ++r) sums[r][c] += weight[r] * value;
            }
        }
    }

    void write(float *to, const float (&sums)[most_columns], float factor) const {
#pragma unroll
        for (int c = 0; c < most_columns; ++c) {
            const int column = threadIdx.x % 32 + 32 * c;
            if (column < width) to[column] = sums[c] * factor;
        }
    }
};

/// out (T, Hq, H), sums (T, Hq) or null.
extern "C" __global__ void __launch_bounds__(256, 2) attention_f32(
    float *out, i64 out_stride, float *sums, const float *q, i64 q_stride, const float *k, i64 k_stride, const float *v,
    i64 v_stride, ATTENTION_ARGUMENTS) {
    extern __shared__ __align__(16) float memory[];
    const Attention p = ATTENTION;
    const Memory m(memory, width, block_rows);
    const i64 group = p.group(), key_head = blockIdx.y;
    const QueryTile tile = find_query_tile(blockIdx.x, cu_q, sequences, block_rows / group, true);
    if (tile.sequence < 0) return;
    const i64 keys = p.key_count(tile.sequence);
    const int rows = (int)(tile.tokens * group), lane = threadIdx.x % 32, warp_row = threadIdx.x / 32 * warp_rows;
    auto offset = [&](int row, i64 stride) {
        return (tile.token + row / group) * stride + (key_head * group + row % group) * width;
    };
    m.copy(m.first_owned, m.width, block_rows, [&](int row) {
        return row < rows ? q + offset(row, q_stride) : nullptr;
    });
    i32 begin = 0, end = 0, first, last;
    if ((int)threadIdx.x < rows) p.visible(tile.sequence, tile.token + threadIdx.x / group, keys, begin, end);
    visible_span(begin, end, first, last);

    i32 begins[warp_rows] = {}, ends[warp_rows] = {};
    float top[warp_rows], norm[warp_rows] = {}, sum[warp_rows][most_columns] = {};
#pragma unroll
    for (int r = 0; r < warp_rows; ++r) {
        top[r] = -infinity;
        if (warp_row + r >= rows) continue;
        p.visible(tile.sequence, tile.token + (warp_row + r) / group, keys, begins[r], ends[r]);
    }
    for (i32 key = first / tile_rows * tile_rows; key < last; key += tile_rows) {
        __syncthreads();
        auto source = [&](const float *x, i64 stride, i64 block_stride, int row) {
            return key + row < last
                ? x + p.key_offset(tile.sequence, key + row, stride, block_stride) + key_head * width : nullptr;
        };
        m.copy(m.first_tile, m.pitch, tile_rows, [&](int row) { return source(k, k_stride, k_block_stride, row); });
        m.copy(m.second_tile, m.pitch, tile_rows, [&](int row) { return source(v, v_stride, v_block_stride, row); });
        __syncthreads();
        float s[warp_rows];
        m.multiply(s, m.first_owned, m.first_tile);
#pragma unroll
        for (int r = 0; r < warp_rows; ++r) {
            const i32 mine = key + lane;
            s[r] = mine >= begins[r] && mine < ends[r] ? s[r] * scale : -infinity;
            const float now = fmaxf(top[r], warp_max(s[r])), shift = now == -infinity ? 0.0f : now;
            const float keep = expf(top[r] - shift);
            top[r] = now;
            s[r] = expf(s[r] - shift);
            norm[r] = norm[r] * keep + warp_sum(s[r]);
#pragma unroll
            for (int c = 0; c < most_columns; ++c) sum[r][c] *= keep;
        }
        m.add(sum, s, m.second_tile);
    }
#pragma unroll
    for (int r = 0; r < warp_rows; ++r) {
        const int row = warp_row + r;
        if (row >= rows) continue;
        m.write(out + offset(row, out_stride), sum[r], norm[r] == 0.0f ? 0.0f : 1.0f / norm[r]);
        if (sums && lane == 0) {
            sums[(tile.token + row / group) * query_heads + key_head * group + row % group] =
                norm[r] == 0.0f ? -infinity : top[r] + logf(norm[r]);
        }
    }
}

/// delta[t, h] = dot(dout[t, h], out[t, h]).
extern "C" __global__ void attention_delta_f32(
    float *delta, const float *dout, i64 dout_stride, const float *out, i64 out_stride, i64 tokens, i64 heads,
    i64 width) {
    const i64 row = ((i64)blockIdx.x * blockDim.x + threadIdx.x) / 32;
    if (row >= tokens * heads) return;
    const i64 token = row / heads, at = (row - token * heads) * width;
    float sum = 0;
    for (i64 i = threadIdx.x % 32; i < width; i += 32) {
        sum += dout[token * dout_stride + at + i] * out[token * out_stride + at + i];
    }
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) delta[row] = sum;
}

/// dq (T, Hq, H): the warp's rows are queries, the tile's keys.
extern "C" __global__ void __launch_bounds__(256) attention_query_gradient_f32(
    float *dq, i64 dq_stride, const float *dout, i64 dout_stride, const float *sums, const float *delta, const float *q,
    i64 q_stride, const float *k, i64 k_stride, const float *v, i64 v_stride, ATTENTION_ARGUMENTS) {
    extern __shared__ __align__(16) float memory[];
    const Attention p = ATTENTION;
    const int block_rows = owned_rows();
    const Memory m(memory, width, block_rows);
    const i64 group = p.group(), key_head = blockIdx.y;
    const QueryTile tile = find_query_tile(blockIdx.x, cu_q, sequences, block_rows / group, true);
    if (tile.sequence < 0) return;
    const i64 keys = p.key_count(tile.sequence);
    const int rows = (int)(tile.tokens * group), lane = threadIdx.x % 32, warp_row = threadIdx.x / 32 * warp_rows;
    auto offset = [&](int row, i64 stride) {
        return (tile.token + row / group) * stride + (key_head * group + row % group) * width;
    };
    m.copy(m.first_owned, m.width, block_rows, [&](int row) {
        return row < rows ? q + offset(row, q_stride) : nullptr;
    });
    m.copy(m.second_owned, m.width, block_rows, [&](int row) {
        return row < rows ? dout + offset(row, dout_stride) : nullptr;
    });
    i32 begin = 0, end = 0, first, last;
    if ((int)threadIdx.x < rows) p.visible(tile.sequence, tile.token + threadIdx.x / group, keys, begin, end);
    visible_span(begin, end, first, last);

    i32 begins[warp_rows] = {}, ends[warp_rows] = {};
    float lse[warp_rows] = {}, mean[warp_rows] = {}, sum[warp_rows][most_columns] = {};
#pragma unroll
    for (int r = 0; r < warp_rows; ++r) {
        const int row = warp_row + r;
        if (row >= rows) continue;
        const i64 at = (tile.token + row / group) * query_heads + key_head * group + row % group;
        p.visible(tile.sequence, tile.token + row / group, keys, begins[r], ends[r]);
        lse[r] = sums[at];
        mean[r] = delta[at];
    }
    for (i32 key = first / tile_rows * tile_rows; key < last; key += tile_rows) {
        __syncthreads();
        const i64 at = cu_k[tile.sequence] + key;
        m.copy(m.first_tile, m.pitch, tile_rows, [&](int row) {
            return key + row < last ? k + (at + row) * k_stride + key_head * width : nullptr;
        });
        m.copy(m.second_tile, m.pitch, tile_rows, [&](int row) {
            return key + row < last ? v + (at + row) * v_stride + key_head * width : nullptr;
        });
        __syncthreads();
        float s[warp_rows], d[warp_rows];
        m.multiply(s, m.first_owned, m.first_tile);
        m.multiply(d, m.second_owned, m.second_tile);
#pragma unroll
        for (int r = 0; r < warp_rows; ++r) {
            const bool is_visible = key + lane >= begins[r] && key + lane < ends[r];
            d[r] = is_visible ? expf(s[r] * scale - lse[r]) * (d[r] - mean[r]) : 0.0f;
        }
        m.add(sum, d, m.first_tile);
    }
#pragma unroll
    for (int r = 0; r < warp_rows; ++r) {
        if (warp_row + r < rows) m.write(dq + offset(warp_row + r, dq_stride), sum[r], scale);
    }
}

/// dk and dv (keys, Hk, H): the warp's rows are keys, the tile's queries of all heads that share them.
extern "C" __global__ void __launch_bounds__(256) attention_key_gradient_f32(
    float *dk, i64 dk_stride, float *dv, i64 dv_stride, const float *dout, i64 dout_stride, const float *sums,
    const float *delta, const float *q, i64 q_stride, const float *k, i64 k_stride, const float *v, i64 v_stride,
    ATTENTION_ARGUMENTS) {
    extern __shared__ __align__(16) float memory[];
    const Attention p = ATTENTION;
    const int block_rows = owned_rows();
    const Memory m(memory, width, block_rows);
    const i64 group = p.group(), key_head = blockIdx.y, tile_tokens = tile_rows / group;
    const QueryTile tile = find_query_tile(blockIdx.x, cu_k, sequences, block_rows, false);
    if (tile.sequence < 0) return;
    const i64 keys = p.key_count(tile.sequence), key_begin = tile.token - cu_k[tile.sequence];
    const i64 q_begin = cu_q[tile.sequence], q_end = cu_q[tile.sequence + 1];
    const int lane = threadIdx.x % 32, warp_key = threadIdx.x / 32 * warp_rows;
    m.copy(m.first_owned, m.width, block_rows, [&](int row) {
        return row < tile.tokens ? k + (tile.token + row) * k_stride + key_head * width : nullptr;
    });
    m.copy(m.second_owned, m.width, block_rows, [&](int row) {
        return row < tile.tokens ? v + (tile.token + row) * v_stride + key_head * width : nullptr;
    });
    // Under a causal mask, earlier queries see none of these keys; with a window, later ones do not.
    i64 from = q_begin, to = q_end;
    if (is_causal) {
        from = max(q_begin, q_end - keys + key_begin);
        if (window > 0) to = min(q_end, key_begin + block_rows + window + q_end - keys);
    }
    from = q_begin + (from - q_begin) / tile_tokens * tile_tokens;
    float sum_k[warp_rows][most_columns] = {}, sum_v[warp_rows][most_columns] = {};
    for (i64 token = from; token < to; token += tile_tokens) {
        __syncthreads();
        const int rows = (int)(min(tile_tokens, q_end - token) * group);
        auto offset = [&](int row, i64 stride) {
            return (token + row / group) * stride + (key_head * group + row % group) * width;
        };
        m.copy(m.first_tile, m.pitch, tile_rows, [&](int row) {
        return row < rows ? q + offset(row, q_stride) : nullptr;
    });
        m.copy(m.second_tile, m.pitch, tile_rows, [&](int row) {
            return row < rows ? dout + offset(row, dout_stride) : nullptr;
        });
        __syncthreads();
        i32 begin = 0, end = 0;
        float lse = 0, mean = 0;
        if (lane < rows) {
            const i64 at = token + lane / group, row = at * query_heads + key_head * group + lane % group;
            p.visible(tile.sequence, at, keys, begin, end);
            lse = sums[row];
            mean = delta[row];
        }
        float s[warp_rows], d[warp_rows];
        m.multiply(s, m.first_owned, m.first_tile);
        m.multiply(d, m.second_owned, m.second_tile);
#pragma unroll
        for (int r = 0; r < warp_rows; ++r) {
            const i32 key = (i32)key_begin + warp_key + r;
            s[r] = key >= begin && key < end ? expf(s[r] * scale - lse) : 0.0f;
            d[r] = s[r] * (d[r] - mean);
        }
        m.add(sum_v, s, m.second_tile);
        m.add(sum_k, d, m.first_tile);
    }
#pragma unroll
    for (int r = 0; r < warp_rows; ++r) {
        const i64 row = warp_key + r;
        if (row >= tile.tokens) continue;
        m.write(dk + (tile.token + row) * dk_stride + key_head * width, sum_k[r], scale);
        m.write(dv + (tile.token + row) * dv_stride + key_head * width, sum_v[r], 1.0f);
    }
}
