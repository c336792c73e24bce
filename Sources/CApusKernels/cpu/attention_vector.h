// Vectors of APUS_LANES floats. Included once per instruction set, inside a region that sets the compiler's target;
// the including file defines APUS_LANES (4, 8 or 16) and APUS_FUSED (1 if the target has fused multiply-add).

#define APUS_INLINE static inline __attribute__((always_inline))

typedef float vfloat __attribute__((ext_vector_type(APUS_LANES)));
typedef int32_t vint __attribute__((ext_vector_type(APUS_LANES)));
typedef uint16_t vbits __attribute__((ext_vector_type(APUS_LANES)));
typedef vfloat vfloat_at __attribute__((aligned(4), may_alias));
typedef vbits vbits_at __attribute__((aligned(2), may_alias));
typedef uint32_t vword __attribute__((ext_vector_type(APUS_LANES)));

APUS_INLINE vfloat vload(const float *p) { return *(const vfloat_at *)p; }
APUS_INLINE void vstore(float *p, vfloat v) { *(vfloat_at *)p = v; }

/// a * b + c.
APUS_INLINE vfloat vfma(vfloat a, vfloat b, vfloat c) {
#if APUS_FUSED
    return __builtin_elementwise_fma(a, b, c);
#else
    return a * b + c;
#endif
}

/// `a` where the condition holds (all bits set), else `b`.
APUS_INLINE vfloat vselect(vint condition, vfloat a, vfloat b) {
    return __builtin_bit_cast(
        vfloat, (condition & __builtin_bit_cast(vint, a)) | (~condition & __builtin_bit_cast(vint, b)));
}

/// The larger; `b` if either is NaN.
APUS_INLINE vfloat vmax(vfloat a, vfloat b) { return vselect(a > b, a, b); }

APUS_INLINE vfloat vload_bf16(const apus_bf16 *p) {
    return __builtin_bit_cast(vfloat, __builtin_convertvector(*(const vbits_at *)p, vword) << 16);
}

/// Rounds to nearest even; NaN stays NaN.
APUS_INLINE void vstore_bf16(apus_bf16 *p, vfloat v) {
    vword bits = __builtin_bit_cast(vword, v);
    vword rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    vword nan = (bits >> 16) | 0x40;
    vword is_nan = __builtin_bit_cast(vword, (vint)(v != v));
    *(vbits_at *)p = __builtin_convertvector((is_nan & nan) | (~is_nan & rounded), vbits);
}

/// Sum of the lanes by a fixed binary tree.
APUS_INLINE float vsum(vfloat v) {
    float lanes[APUS_LANES];
    vstore(lanes, v);
#pragma clang loop unroll(full)
    for (int n = APUS_LANES / 2; n > 0; n /= 2) {
#pragma clang loop unroll(full)
        for (int i = 0; i < n; i++) lanes[i] += lanes[i + n];
    }
    return lanes[0];
}

/// The vector with its lanes moved down by `n`, cyclically.
#if APUS_LANES == 16
#define APUS_ROTATE(v, n) \
    __builtin_shufflevector(v, v, n, n + 1, n + 2, n + 3, n + 4, n + 5, n + 6, n + 7, n + 8, n + 9, n + 10, n + 11, \
        n + 12, n + 13, n + 14, n + 15)
#elif APUS_LANES == 8
#define APUS_ROTATE(v, n) __builtin_shufflevector(v, v, n, n + 1, n + 2, n + 3, n + 4, n + 5, n + 6, n + 7)
#else
#define APUS_ROTATE(v, n) __builtin_shufflevector(v, v, n, n + 1, n + 2, n + 3)
#endif

/// Largest lane.
APUS_INLINE float vlargest(vfloat v) {
#if APUS_LANES == 16
    v = vmax(v, APUS_ROTATE(v, 8));
#endif
#if APUS_LANES >= 8
    v = vmax(v, APUS_ROTATE(v, 4));
#endif
    v = vmax(v, APUS_ROTATE(v, 2));
    v = vmax(v, APUS_ROTATE(v, 1));
    return v[0];
}

/// Lane numbers 0, 1, ...
APUS_INLINE vint vlanes(void) {
#if APUS_LANES == 16
    return (vint){0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
#elif APUS_LANES == 8
    return (vint){0, 1, 2, 3, 4, 5, 6, 7};
#else
    return (vint){0, 1, 2, 3};
#endif
}

/// 2^x for x <= 127 within 2e-7 relative; exactly 1 at 0, 0 below -126.5, NaN for NaN. The polynomial is a minimax fit
/// of 2^f over |f| <= 1/2 with relative error 9.2e-8 before rounding.
APUS_INLINE vfloat vexp2(vfloat x) {
    // Adding `magic` rounds to an integer, whose sum with the exponent bias 127 is then in the low bits. The bias
    // cancels at -127: the power is the float whose bits are 0.
    const vfloat magic = (vfloat)(0x1.8p23f + 127.0f);
    vfloat clamped = vmax((vfloat)-127.0f, x);
    vfloat shifted = clamped + magic;
    vfloat f = clamped - (shifted - magic);
    vfloat p = (vfloat)1.326472689e-03f;
    p = vfma(p, f, (vfloat)9.671512910e-03f);
    p = vfma(p, f, (vfloat)5.550733747e-02f);
    p = vfma(p, f, (vfloat)2.402224208e-01f);
    p = vfma(p, f, (vfloat)6.931469776e-01f);
    p = vfma(p, f, (vfloat)1.0f);
    return p * __builtin_bit_cast(vfloat, __builtin_bit_cast(vint, shifted) << 23);
}

/// Natural logarithm of a positive normal number, by log(m 2^e) = e log(2) + 2 atanh((m - 1) / (m + 1)) with m in [0.7,
/// 1.5).
APUS_INLINE double natural_logarithm(float x) {
    const uint32_t bits = __builtin_bit_cast(uint32_t, x);
    const int32_t e = (int32_t)(bits - 0x3f3504f3u) >> 23;
    const double m = __builtin_bit_cast(float, bits - ((uint32_t)e << 23)), s = (m - 1) / (m + 1), z = s * s;
    return e * 0.6931471805599453 + 2 * s * (1 + z * (1.0 / 3 + z * (1.0 / 5 + z * (1.0 / 7 + z * (1.0 / 9
        + z / 11)))));
}

/// One step of a transposition by perfect shuffles: interleaves rows i and i + LANES / 2; log2(LANES) steps transpose.
APUS_INLINE void vinterleave(const vfloat in[APUS_LANES], vfloat out[APUS_LANES]) {
#pragma clang loop unroll(full)
    for (int i = 0; i < APUS_LANES / 2; i++) {
        vfloat a = in[i], b = in[i + APUS_LANES / 2];
#if APUS_LANES == 16
        out[2 * i] = __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
        out[2 * i + 1] = __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
#elif APUS_LANES == 8
        out[2 * i] = __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
        out[2 * i + 1] = __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
#else
        out[2 * i] = __builtin_shufflevector(a, b, 0, 4, 1, 5);
        out[2 * i + 1] = __builtin_shufflevector(a, b, 2, 6, 3, 7);
#endif
    }
}

APUS_INLINE void vtranspose(vfloat rows[APUS_LANES]) {
    vfloat other[APUS_LANES];
    vinterleave(rows, other);
    vinterleave(other, rows);
#if APUS_LANES >= 8
    vinterleave(rows, other);
#if APUS_LANES == 16
    vinterleave(other, rows);
#else
    for (int i = 0; i < APUS_LANES; i++) rows[i] = other[i];
#endif
#endif
}
