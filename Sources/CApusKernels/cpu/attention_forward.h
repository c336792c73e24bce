// Forward attention of one unit: online softmax over key tiles of 64.
//
// For each key tile: 1 pack keys (transposed) and values, and then for each panel of TILE_ROWS query rows:
// 2 scores = q k^T (the scale and log2(e) are in q), 3 softmax against the running maximum, 4 sum = sum * keep + p v.
// A row for which a whole tile is invisible comes out of these steps with unchanged bits: keep is 1 and p is 0.

enum {
    /// TILE_ROWS rounded up to whole vectors.
    PANEL_ROWS = (TILE_ROWS + APUS_LANES - 1) / APUS_LANES * APUS_LANES,
};

/// Floats of workspace, in the order they lie.
typedef struct forward_layout {
    float *keys, *values, *queries, *sums, *scores, *norms, *maxima;
    int32_t *begin, *end;
} forward_layout;

static const float log2_e = 1.44269504f, ln_2 = 0.693147181f;

APUS_INLINE forward_layout forward_lay_out(const apus_attention_problem *p, float *at) {
    const ptrdiff_t width = apus_attention_padded_width(p), rows = apus_attention_tile_rows(p);
    forward_layout l;
    l.keys = at;
    l.values = l.keys + APUS_ATTENTION_KEYS * width;
    l.queries = l.values + APUS_ATTENTION_KEYS * width;
    l.sums = l.queries + rows * width;
    l.norms = l.sums + rows * width;
    l.scores = l.norms + rows * APUS_ATTENTION_LANES;
    l.maxima = l.scores + TILE_ROWS * APUS_ATTENTION_KEYS;
    l.begin = (int32_t *)(l.maxima + rows);
    l.end = l.begin + rows;
    return l;
}

/// Largest score of one row over vectors [v_begin, v_end). Scores of keys outside [begin, end) become -inf.
APUS_INLINE float largest_score(float *scores, int v_begin, int v_end, int begin, int end) {
    const vfloat invisible = (vfloat)-__builtin_inff();
    vfloat largest = invisible;
    if (begin <= v_begin * APUS_LANES && end >= v_end * APUS_LANES) {
        for (int v = v_begin; v < v_end; v++) largest = vmax(largest, vload(scores + v * APUS_LANES));
    } else {
        for (int v = v_begin; v < v_end; v++) {
            vint key = vlanes() + v * APUS_LANES;
            vfloat s = vselect((key >= begin) & (key < end), vload(scores + v * APUS_LANES), invisible);
            vstore(scores + v * APUS_LANES, s);
            largest = vmax(largest, s);
        }
    }
    return vlargest(largest);
}

/// Raises the running maxima to those of the tile. Writes what scores are reduced by, and what earlier sums are
/// multiplied with.
APUS_INLINE void raise_maxima(int rows, const float *largest, float *maxima, float *shift, float *keep) {
    const vfloat none = (vfloat)-__builtin_inff();
    for (int r = 0; r < rows; r += APUS_LANES) {
        const vfloat before = vload(maxima + r), now = vmax(vload(largest + r), before);
        // With no key seen so far every score is -inf; subtracting 0 makes the exponentials 0 instead of NaN.
        const vfloat reference = vselect(now == none, (vfloat)0.0f, now);
        vstore(maxima + r, now);
        vstore(shift + r, reference);
        vstore(keep + r, vexp2(before - reference));
    }
}

/// Turns the scores of one row into exponentials, in place, and adds them to the row's lanes of the norm.
APUS_INLINE void exponentials(float *scores, int v_begin, int v_end, float shift, float keep, float *norm) {
    vfloat total = (vfloat)0.0f;
    for (int v = v_begin; v < v_end; v++) {
        vfloat e = vexp2(vload(scores + v * APUS_LANES) - (vfloat)shift);
        vstore(scores + v * APUS_LANES, e);
        total += e;
    }
    vstore(norm, vfma(vload(norm), (vfloat)keep, total));
}

/// Step 3 for the rows of a panel; row r sees keys [begins[r], ends[r]) of the tile.
APUS_INLINE void softmax_panel(
    float *scores, int rows, int v_begin, int v_end, const int *begins, const int *ends, float *panel_maxima,
    float *norms,
    float keep[PANEL_ROWS]) {
    float maxima[PANEL_ROWS], largest[PANEL_ROWS], shift[PANEL_ROWS];
    for (int r = 0; r < PANEL_ROWS; r++) {
        maxima[r] = r < rows ? panel_maxima[r] : -__builtin_inff();
        largest[r] = -__builtin_inff();
    }
    for (int r = 0; r < rows; r++) {
        largest[r] = largest_score(scores + r * APUS_ATTENTION_KEYS, v_begin, v_end, begins[r], ends[r]);
    }
    raise_maxima(rows, largest, maxima, shift, keep);
    for (int r = 0; r < rows; r++) {
        exponentials(scores + r * APUS_ATTENTION_KEYS, v_begin, v_end, shift[r], keep[r], norms + r * APUS_LANES);
        panel_maxima[r] = maxima[r];
    }
}

/// Steps 2 to 4 for rows [row, row + rows) against the tile that starts at key `first` and has `keys` keys.
static void forward_panel(
    const apus_attention_problem *p, const forward_layout *l, ptrdiff_t row, int rows, ptrdiff_t first,
    ptrdiff_t keys) {
    const ptrdiff_t width = apus_attention_padded_width(p);
    int begins[TILE_ROWS], ends[TILE_ROWS], begin = (int)keys, end = 0;
    for (int r = 0; r < rows; r++) {
        ptrdiff_t b = l->begin[row + r] - first, e = l->end[row + r] - first;
        begins[r] = (int)(b < 0 ? 0 : b > keys ? keys : b);
        ends[r] = (int)(e < 0 ? 0 : e > keys ? keys : e);
        if (begins[r] >= ends[r]) continue;
        if (begins[r] < begin) begin = begins[r];
        if (ends[r] > end) end = ends[r];
    }
    if (begin >= end) return;
    const int v_begin = begin / APUS_LANES, v_end = (end + APUS_LANES - 1) / APUS_LANES, column = v_begin * APUS_LANES;
    product_tile scores = {
        .depth = p->head_width, .a = l->queries + row * width, .a_stride = width, .b = l->keys + column,
        .b_stride = APUS_ATTENTION_KEYS, .c = l->scores + column, .c_stride = APUS_ATTENTION_KEYS};
    product_panel(PRODUCT_SET, rows, v_end - v_begin, scores);
    float keep[PANEL_ROWS];
    float *maxima = l->maxima + row, *norms = l->norms + row * APUS_LANES;
    const int full = APUS_ATTENTION_KEYS / APUS_LANES;
    if (v_begin == 0 && v_end == full) {
        // Constant bounds: the compiler keeps a row of the tile in registers.
        softmax_panel(l->scores, rows, 0, full, begins, ends, maxima, norms, keep);
    } else {
        softmax_panel(l->scores, rows, v_begin, v_end, begins, ends, maxima, norms, keep);
    }
    product_tile sums = {
        .depth = end - begin, .a = l->scores + begin, .a_stride = APUS_ATTENTION_KEYS, .b = l->values + begin * width,
        .b_stride = width, .c = l->sums + row * width, .c_stride = width, .keep = keep};
    product_panel(PRODUCT_RESCALE, rows, (p->head_width + APUS_LANES - 1) / APUS_LANES, sums);
}

/// Keys of the tile at `first`; not positive past the end.
APUS_INLINE ptrdiff_t tile_keys(ptrdiff_t first, ptrdiff_t last) {
    return last - first < APUS_ATTENTION_KEYS ? last - first : APUS_ATTENTION_KEYS;
}

void APUS_NAME(apus_attention_forward_unit)(
    const apus_attention_forward_call *call, ptrdiff_t sequence, ptrdiff_t key_head, ptrdiff_t token_begin,
    ptrdiff_t token_end) {
    const apus_attention_problem *p = call->problem;
    const apus_kv_view *kv = call->kv;
    const ptrdiff_t group = p->query_heads / p->key_heads, width = apus_attention_padded_width(p);
    const ptrdiff_t rows = (token_end - token_begin) * group, key_count = apus_attention_key_count(kv, sequence);
    const forward_layout l = forward_lay_out(p, call->workspace);

    ptrdiff_t first_key = key_count, last_key = 0;
    for (ptrdiff_t r = 0; r < rows; r++) {
        apus_attention_visible(p, sequence, token_begin + r / group, key_count, &l.begin[r], &l.end[r]);
        if (l.begin[r] < l.end[r] && l.begin[r] < first_key) first_key = l.begin[r];
        if (l.end[r] > last_key) last_key = l.end[r];
        l.maxima[r] = -__builtin_inff();
    }
    first_key = first_key / APUS_ATTENTION_KEYS * APUS_ATTENTION_KEYS;

    const int panels = (int)((rows + TILE_ROWS - 1) / TILE_ROWS), row_lines = (int)(p->head_width * 4 + 63) / 64;
    // Many panels have time for the next tile's rows; with few, packing is most of the time.
    const bool few = panels < 4;
    const int panel_fetch = few ? 0 : 2 * APUS_ATTENTION_KEYS / panels + 1;
    row_prefetch next;
    prefetch_keys(&next, kv, p->head_width, sequence, key_head, first_key, tile_keys(first_key, last_key));
    for (ptrdiff_t r = 0; r < rows; r++) {
        const ptrdiff_t token = token_begin + r / group, head = key_head * group + r % group, ahead = r + 8;
        if (ahead < rows) {
            const char *row = rows_at(&p->q, token_begin + ahead / group, key_head * group + ahead % group);
            for (int i = 0; i < row_lines; i++) __builtin_prefetch(row + i * 64, 0, 3);
        }
        pack_row(rows_at(&p->q, token, head), p->q.dtype, p->head_width, width, p->scale * log2_e,
            l.queries + r * width);
        prefetch_rows(&next, 2);
    }
    memset(l.sums, 0, (size_t)(rows * width) * sizeof(float));
    memset(l.norms, 0, (size_t)(rows * APUS_LANES) * sizeof(float));

    for (ptrdiff_t first = first_key; first < last_key; first += APUS_ATTENTION_KEYS) {
        const ptrdiff_t keys = tile_keys(first, last_key), after = first + APUS_ATTENTION_KEYS;
        const char *tile[APUS_ATTENTION_KEYS];
        prefetch_keys(&next, kv, p->head_width, sequence, key_head, after, tile_keys(after, last_key));
        if (after >= last_key) {
            prefetch_reset(&next, p->head_width, call->out->dtype);
            for (ptrdiff_t r = 0; r < rows; r++) {
                prefetch_add(&next, output_at(call->out, token_begin + r / group, key_head * group + r % group));
            }
        }
        key_rows(kv, false, sequence, key_head, first, keys, tile);
        pack_transposed(tile, kv->k.dtype, keys, p->head_width, l.keys, &next, few ? APUS_LANES : 0);
        key_rows(kv, true, sequence, key_head, first, keys, tile);
        for (ptrdiff_t j = 0; j < keys; j++) {
            pack_row(tile[j], kv->v.dtype, p->head_width, width, 1.0f, l.values + j * width);
            prefetch_rows(&next, few ? 1 : 0);
        }
        for (ptrdiff_t r = 0; r < rows; r += TILE_ROWS) {
            prefetch_rows(&next, panel_fetch);
            forward_panel(p, &l, r, rows - r < TILE_ROWS ? (int)(rows - r) : TILE_ROWS, first, keys);
        }
    }

    for (ptrdiff_t r = 0; r < rows; r++) {
        const ptrdiff_t token = token_begin + r / group, head = key_head * group + r % group;
        const float norm = vsum(vload(l.norms + r * APUS_LANES)), inverse = norm == 0.0f ? 0.0f : 1.0f / norm;
        unpack_row(l.sums + r * width, p->head_width, inverse, call->out->dtype, output_at(call->out, token, head));
        if (call->lse) {
            call->lse[token * p->query_heads + head] =
                norm == 0.0f ? -__builtin_inff() : (float)(l.maxima[r] * 0.6931471805599453 + natural_logarithm(norm));
        }
    }
}
