// Packing of strided f32 or bf16 rows into dense f32 tiles, and the way back.

/// Loads elements [d, d + LANES) of a row of `width`; past the end is zero.
APUS_INLINE vfloat pack_load(const void *row, bool bf16, ptrdiff_t d, ptrdiff_t width) {
    if (d + APUS_LANES <= width) {
        return bf16 ? vload_bf16((const apus_bf16 *)row + d) : vload((const float *)row + d);
    }
    float buffer[APUS_LANES] = {0};
    for (ptrdiff_t i = d; i < width; i++) {
        buffer[i - d] =
            bf16 ? __builtin_bit_cast(float, (uint32_t)((const apus_bf16 *)row)[i] << 16) : ((const float *)row)[i];
    }
    return vload(buffer);
}

/// Copies one row times `factor`, zero-padded to `padded` floats.
APUS_INLINE void pack_row(
    const void *row, apus_dtype dtype, ptrdiff_t width, ptrdiff_t padded, float factor, float *to) {
    if (dtype == APUS_BF16) {
        for (ptrdiff_t d = 0; d < padded; d += APUS_LANES) {
            vstore(to + d, pack_load(row, true, d, width) * (vfloat)factor);
        }
    } else {
        for (ptrdiff_t d = 0; d < padded; d += APUS_LANES) {
            vstore(to + d, pack_load(row, false, d, width) * (vfloat)factor);
        }
    }
}

/// Stores one row times `factor` in the output's type.
APUS_INLINE void unpack_row(const float *from, ptrdiff_t width, float factor, apus_dtype dtype, void *row) {
    ptrdiff_t d = 0;
    if (dtype == APUS_BF16) {
        for (; d + APUS_LANES <= width; d += APUS_LANES) {
            vstore_bf16((apus_bf16 *)row + d, vload(from + d) * (vfloat)factor);
        }
        if (d < width) {
            apus_bf16 buffer[APUS_LANES];
            vstore_bf16(buffer, vload(from + d) * (vfloat)factor);
            memcpy((apus_bf16 *)row + d, buffer, (size_t)(width - d) * sizeof(apus_bf16));
        }
    } else {
        for (; d + APUS_LANES <= width; d += APUS_LANES) vstore((float *)row + d, vload(from + d) * (vfloat)factor);
        for (; d < width; d++) ((float *)row)[d] = from[d] * factor;
    }
}

/// Element (token, head, 0) of strided rows.
APUS_INLINE const void *rows_at(const apus_attention_rows *rows, ptrdiff_t token, ptrdiff_t head) {
    ptrdiff_t offset = token * rows->token_stride + head * rows->head_stride;
    return (const char *)rows->data + offset * (rows->dtype == APUS_BF16 ? 2 : 4);
}

APUS_INLINE void *output_at(const apus_attention_output *rows, ptrdiff_t token, ptrdiff_t head) {
    ptrdiff_t offset = token * rows->token_stride + head * rows->head_stride;
    return (char *)rows->data + offset * (rows->dtype == APUS_BF16 ? 2 : 4);
}

/// Addresses of `count` consecutive key (or value) rows of a sequence from key `first` on, through the block table if
/// there is one.
APUS_INLINE void key_rows(
    const apus_kv_view *kv, bool values, ptrdiff_t sequence, ptrdiff_t head, ptrdiff_t first, ptrdiff_t count,
    const char **to) {
    const apus_attention_rows *rows = values ? &kv->v : &kv->k;
    const ptrdiff_t element = rows->dtype == APUS_BF16 ? 2 : 4, step = rows->token_stride * element;
    if (!kv->block_table) {
        const char *row = rows_at(rows, kv->cu_k[sequence] + first, head);
        for (ptrdiff_t j = 0; j < count; j++, row += step) to[j] = row;
        return;
    }
    const int32_t *table = kv->block_table + sequence * kv->block_table_stride + first / kv->block_size;
    const ptrdiff_t block_step = (values ? kv->v_block_stride : kv->k_block_stride) * element;
    ptrdiff_t within = first % kv->block_size;
    const char *base = (const char *)rows->data + head * rows->head_stride * element;
    for (ptrdiff_t j = 0; j < count; table++, within = 0) {
        const char *row = base + *table * block_step + within * step;
        for (; within < kv->block_size && j < count; within++, j++, row += step) to[j] = row;
    }
}

/// Rows that will be needed soon, fetched a few at a time between pieces of work. The rows of one head lie far apart
/// (slices of a fused projection, or blocks of a pool), which the hardware's prefetcher does not follow.
typedef struct row_prefetch {
    const char *rows[4 * APUS_ATTENTION_ROWS];
    int count, row;
    ptrdiff_t bytes;
} row_prefetch;

/// Adds a row unless the list is full.
APUS_INLINE void prefetch_add(row_prefetch *p, const void *row) {
    if (p->count < 4 * APUS_ATTENTION_ROWS) p->rows[p->count++] = row;
}

/// Drops what is left of the list; rows to come have `width` elements.
APUS_INLINE void prefetch_reset(row_prefetch *p, ptrdiff_t width, apus_dtype dtype) {
    p->row = p->count = 0;
    p->bytes = width * (dtype == APUS_BF16 ? 2 : 4);
}

APUS_INLINE void prefetch_rows(row_prefetch *p, int rows) {
    const int end = rows < p->count - p->row ? p->row + rows : p->count;
    for (; p->row < end; p->row++) {
        const char *row = p->rows[p->row];
        for (ptrdiff_t at = 0; at < p->bytes; at += 64) __builtin_prefetch(row + at, 0, 2);
    }
}

/// Starts on the keys and values [first, first + count) of a sequence; none if count is not positive.
APUS_INLINE void prefetch_keys(
    row_prefetch *p, const apus_kv_view *kv, ptrdiff_t width, ptrdiff_t sequence, ptrdiff_t head, ptrdiff_t first,
    ptrdiff_t count) {
    prefetch_reset(p, width, kv->k.dtype);
    if (count <= 0) return;
    key_rows(kv, false, sequence, head, first, count, p->rows);
    key_rows(kv, true, sequence, head, first, count, p->rows + count);
    p->count = (int)(2 * count);
}

/// Transposes up to KEYS rows into (width, KEYS); columns past `count` are zero. Fetches
/// `fetch` rows of `next` per LANES rows.
APUS_INLINE void pack_transposed_typed(
    const char *const *rows, bool bf16, ptrdiff_t count, ptrdiff_t width, float *to,
    row_prefetch *next, int fetch) {
    for (ptrdiff_t j = 0; j < APUS_ATTENTION_KEYS; j += APUS_LANES) {
        prefetch_rows(next, fetch);
        for (ptrdiff_t d = 0; d < width; d += APUS_LANES) {
            vfloat block[APUS_LANES];
            if (j + APUS_LANES <= count && d + APUS_LANES <= width) {
#pragma clang loop unroll(full)
                for (int i = 0; i < APUS_LANES; i++) block[i] = pack_load(rows[j + i], bf16, d, width);
            } else {
                for (int i = 0; i < APUS_LANES; i++) {
                    block[i] = j + i < count ? pack_load(rows[j + i], bf16, d, width) : (vfloat)0.0f;
                }
            }
            vtranspose(block);
            const ptrdiff_t rest = width - d;
#pragma clang loop unroll(full)
            for (int i = 0; i < APUS_LANES; i++) {
                if (i < rest) vstore(to + (d + i) * APUS_ATTENTION_KEYS + j, block[i]);
            }
        }
    }
}

static __attribute__((noinline)) void pack_transposed(
    const char *const *rows, apus_dtype dtype, ptrdiff_t count, ptrdiff_t width, float *to,
    row_prefetch *next, int fetch) {
    if (dtype == APUS_BF16) {
        pack_transposed_typed(rows, true, count, width, to, next, fetch);
    } else {
        pack_transposed_typed(rows, false, count, width, to, next, fetch);
    }
}
