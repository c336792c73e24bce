// f32 matrices as sums of bf16 ones, for products with the tensor cores that are as exact as f32's. See Ops/ProductInParts.swift.
//
// An f32 has 24 significant bits and a bf16 has 8: x = x0 + x1 + x2 with x0 the nearest bf16 to x, x1 to what is left, and
// x2 to what is left then. Products of bf16 are exact in f32. Floor: the bytes.

#include "reduce.cuh"

/// Part p of y (rows, width), `part_stride` elements after the part before it, is x0, x1 or x2 of x (rows, width), as bits
/// 2 p and 2 p + 1 of `pattern` say. Launch "narrow rows".
extern "C" __global__ void split_parts(
    bf16 *y, i64 y_stride, i64 part_stride, const float *x, i64 x_stride, i64 rows, i64 width, i64 parts, i64 pattern) {
    const i64 row = row_index();
    if (row >= rows) return;
    const float *in = x + row * x_stride;
    bf16 *out = y + row * y_stride;
    const bool vector = is_aligned(in) && is_aligned(y, y_stride) && part_stride % lanes == 0;
    each_row_group(width, [&](i64 i, i64 left) {
        Lanes whole, part[3];
        load(whole, in + i, left, vector);
#pragma unroll
        for (int p = 0; p < 3; ++p) {
            each(part[p], [&](int l) { return to_float(from_float<bf16>(whole.x[l])); });
            each(whole, [&](int l) { return whole.x[l] - part[p].x[l]; });
        }
        for (i64 p = 0; p < parts; ++p) {
            const i64 which = pattern >> 2 * p & 3;
            store(out + p * part_stride + i, which == 0 ? part[0] : which == 1 ? part[1] : part[2], left, vector);
        }
    });
}

/// y (rows, width) (+)= the sum of three parts of x, the last first: they are the smallest. Launch "narrow rows".
extern "C" __global__ void sum_parts(
    float *y, i64 y_stride, const float *x, i64 x_stride, i64 part_stride, i64 rows, i64 width, i64 adds) {
    const i64 row = row_index();
    if (row >= rows) return;
    const float *in = x + row * x_stride;
    float *out = y + row * y_stride;
    const bool vector = is_aligned(out) && is_aligned(x, x_stride) && part_stride % lanes == 0;
    each_row_group(width, [&](i64 i, i64 left) {
        Lanes sum = {}, part;
        for (int p = 2; p >= 0; --p) {
            load(part, in + p * part_stride + i, left, vector);
            each(sum, [&](int l) { return sum.x[l] + part.x[l]; });
        }
        if (adds) {
            load(part, out + i, left, vector);
            each(sum, [&](int l) { return sum.x[l] + part.x[l]; });
        }
        store(out + i, sum, left, vector);
    });
}
