// Reductions over a range for one element type, in double, with a fixed order. See apus_elementwise.h.

// Four chains of eight lanes hide the latency of the additions; term(low, high) widens one group of sixteen.
#define REDUCE32(result, n, TERM)                                                                                      \
    f64x8 chain0 = 0.0, chain1 = 0.0, chain2 = 0.0, chain3 = 0.0;                                                      \
    ptrdiff_t start = 0;                                                                                               \
    for (; start + 32 <= (n); start += 32) {                                                                           \
        TERM(chain0, chain1, start, 16)                                                                                \
        TERM(chain2, chain3, start + 16, 16)                                                                           \
    }                                                                                                                  \
    for (; start < (n); start += 16) {                                                                                 \
        const ptrdiff_t left = (n) - start < 16 ? (n) - start : 16;                                                    \
        TERM(chain0, chain1, start, left)                                                                              \
    }                                                                                                                  \
    chain0 = (chain0 + chain1) + (chain2 + chain3);                                                                    \
    double result = lane_sum_f64(&chain0);

#define WIDEN(low, high, p, c)                                                                                         \
    f64x8 low, high;                                                                                                   \
    {                                                                                                                  \
        f32x16 narrow;                                                                                                 \
        LOAD(&narrow, p, c);                                                                                           \
        low = __builtin_convertvector(narrow.lo, f64x8);                                                               \
        high = __builtin_convertvector(narrow.hi, f64x8);                                                              \
    }

#define SUM_TERM(a0, a1, i, c) { WIDEN(low, high, x + (i), c) a0 = a0 + low; a1 = a1 + high; }
#define SQUARE_TERM(a0, a1, i, c) { WIDEN(low, high, x + (i), c) a0 = a0 + low * low; a1 = a1 + high * high; }

#if ELEMENT_IS_F32
APUS_CLONES double NAME(apus_sum)(const ELEMENT *x, ptrdiff_t n) {
    REDUCE32(sum, n, SUM_TERM)
    return sum;
}
#endif

APUS_CLONES double NAME(apus_sum_squares)(const ELEMENT *x, ptrdiff_t n) {
    REDUCE32(sum, n, SQUARE_TERM)
    return sum;
}

APUS_CLONES ptrdiff_t NAME(apus_count_nonfinite)(const ELEMENT *x, ptrdiff_t n, ptrdiff_t *first) {
    ptrdiff_t total = 0, found = -1;
    // Blocks keep the lane counters from overflowing and bound the search for the first one.
    const ptrdiff_t block = 1 << 16;
    for (ptrdiff_t start = 0; start < n; start += block) {
        ptrdiff_t size = n - start < block ? n - start : block;
        const ELEMENT *in = x + start;
        i32x16 counts = 0;
        APUS_EACH16(i, c, size, {
            f32x16 u;
            LOAD(&u, in + i, c);
            u32x16 exponent = (u32x16)u & 0x7F800000u;
            counts = counts - (i32x16)(exponent == 0x7F800000u);
        })
        ptrdiff_t here = __builtin_reduce_add(counts);
        for (ptrdiff_t i = 0; here > 0 && found < 0 && i < size; ++i) {
            float value = TO_FLOAT(in[i]);
            if (!(__builtin_fabsf(value) < __builtin_inff())) found = start + i;
        }
        total += here;
    }
    if (first) *first = found;
    return total;
}

#undef REDUCE32
#undef WIDEN
#undef SUM_TERM
#undef SQUARE_TERM
