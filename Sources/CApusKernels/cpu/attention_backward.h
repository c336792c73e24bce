// Backward attention of one unit (sequence, key head), by recomputation of the probabilities from lse (Dao et al. 2022,
// 3.1).
//
// 1 Pack all keys, and all values transposed. Then for each query head of the group and each tile of query rows:
//   2 delta = rowsum(dout * out), and for each key tile it sees:
//   3 p = exp(scale q k^T - lse), 4 ds = p * (dout v^T - delta), 5 dq += ds k, 6 dv += p^T dout, 7 dk += ds^T q.
// dk and dv gather in the workspace over the whole unit, in the fixed order of heads, row tiles and key tiles.

typedef struct backward_layout {
    /// Per key tile (H, 64): keys and values transposed.
    float *keys_transposed, *values_transposed;
    /// (keys, padded H).
    float *keys, *dk, *dv;
    /// (ROWS, padded H).
    float *queries, *douts, *dq;
    /// (ROWS, 64).
    float *p, *ds;
    /// (ROWS).
    float *lse, *delta;
    int32_t *begin, *end;
} backward_layout;

APUS_INLINE backward_layout backward_lay_out(const apus_attention_problem *p, ptrdiff_t key_count, float *at) {
    const ptrdiff_t width = apus_attention_padded_width(p);
    const ptrdiff_t keys = apus_attention_round_up(key_count, APUS_ATTENTION_KEYS);
    backward_layout l;
    l.keys_transposed = at;
    l.values_transposed = l.keys_transposed + keys * width;
    l.keys = l.values_transposed + keys * width;
    l.dk = l.keys + keys * width;
    l.dv = l.dk + keys * width;
    l.queries = l.dv + keys * width;
    l.douts = l.queries + APUS_ATTENTION_ROWS * width;
    l.dq = l.douts + APUS_ATTENTION_ROWS * width;
    l.p = l.dq + APUS_ATTENTION_ROWS * width;
    l.ds = l.p + APUS_ATTENTION_ROWS * APUS_ATTENTION_KEYS;
    l.lse = l.ds + APUS_ATTENTION_ROWS * APUS_ATTENTION_KEYS;
    l.delta = l.lse + APUS_ATTENTION_ROWS;
    l.begin = (int32_t *)(l.delta + APUS_ATTENTION_ROWS);
    l.end = l.begin + APUS_ATTENTION_ROWS;
    return l;
}

/// p and ds of one row from its scores (in p) and dout v^T (in ds), over vectors [v_begin, v_end); zero elsewhere in
/// the tile.
APUS_INLINE void probability_row(
    float *p, float *ds, int v_begin, int v_end, int begin, int end, float lse, float delta) {
    for (int v = 0; v < APUS_ATTENTION_KEYS / APUS_LANES; v++) {
        float *at = p + v * APUS_LANES, *d_at = ds + v * APUS_LANES;
        const int key = v * APUS_LANES;
        if (v < v_begin || v >= v_end || end <= key || begin >= key + APUS_LANES) {
            vstore(at, (vfloat)0.0f);
            vstore(d_at, (vfloat)0.0f);
            continue;
        }
        vfloat e = vexp2(vload(at) - (vfloat)lse);
        if (begin > key || end < key + APUS_LANES) {
            vint lane = vlanes() + key;
            e = vselect((lane >= begin) & (lane < end), e, (vfloat)0.0f);
        }
        vstore(at, e);
        vstore(d_at, e * (vload(d_at) - (vfloat)delta));
    }
}

/// Steps 3 to 7 for a tile of `rows` query rows and the `keys` keys from `first` on; fetches `fetch` rows of `next` per
/// panel.
static void backward_tile(
    const apus_attention_problem *p, const backward_layout *l, int rows, ptrdiff_t first, int keys, row_prefetch *next,
    int fetch) {
    const ptrdiff_t width = apus_attention_padded_width(p), columns = (p->head_width + APUS_LANES - 1) / APUS_LANES;
    int begins[APUS_ATTENTION_ROWS], ends[APUS_ATTENTION_ROWS];
    for (int r = 0; r < rows; r++) {
        ptrdiff_t b = l->begin[r] - first, e = l->end[r] - first;
        begins[r] = (int)(b < 0 ? 0 : b > keys ? keys : b);
        ends[r] = (int)(e < 0 ? 0 : e > keys ? keys : e);
        if (begins[r] >= ends[r]) begins[r] = keys, ends[r] = 0;
    }
    for (int row = 0; row < rows; row += TILE_ROWS) {
        const int n = rows - row < TILE_ROWS ? rows - row : TILE_ROWS;
        int begin = keys, end = 0;
        for (int r = row; r < row + n; r++) {
            if (begins[r] < begin) begin = begins[r];
            if (ends[r] > end) end = ends[r];
        }
        const int v_begin = begin / APUS_LANES, v_end = (end + APUS_LANES - 1) / APUS_LANES,
            column = v_begin * APUS_LANES;
        prefetch_rows(next, fetch);
        float *probabilities = l->p + row * APUS_ATTENTION_KEYS, *ds = l->ds + row * APUS_ATTENTION_KEYS;
        if (begin < end) {
            product_tile product = {
                .depth = p->head_width, .a = l->queries + row * width, .a_stride = width,
                .b = l->keys_transposed + first * width + column, .b_stride = APUS_ATTENTION_KEYS,
                .c = probabilities + column, .c_stride = APUS_ATTENTION_KEYS};
            product_panel(PRODUCT_SET, n, v_end - v_begin, product);
            product.a = l->douts + row * width;
            product.b = l->values_transposed + first * width + column;
            product.c = ds + column;
            product_panel(PRODUCT_SET, n, v_end - v_begin, product);
        }
        for (int r = 0; r < n; r++) {
            probability_row(
                probabilities + r * APUS_ATTENTION_KEYS, ds + r * APUS_ATTENTION_KEYS, v_begin, v_end, begins[row + r],
                ends[row + r], l->lse[row + r], l->delta[row + r]);
        }
        if (begin < end) {
            product_tile product = {
                .depth = end - begin, .a = ds + begin, .a_stride = APUS_ATTENTION_KEYS,
                .b = l->keys + (first + begin) * width,
                .b_stride = width, .c = l->dq + row * width, .c_stride = width};
            product_panel(PRODUCT_ADD, n, columns, product);
        }
    }
    for (int key = 0; key < keys; key += TILE_ROWS) {
        const int n = keys - key < TILE_ROWS ? keys - key : TILE_ROWS;
        int begin = rows, end = 0;
        for (int r = 0; r < rows; r++) {
            if (begins[r] >= key + n || ends[r] <= key) continue;
            if (r < begin) begin = r;
            end = r + 1;
        }
        if (begin >= end) continue;
        product_tile product = {
            .depth = end - begin, .a = l->p + begin * APUS_ATTENTION_KEYS + key, .a_stride = APUS_ATTENTION_KEYS,
            .b = l->douts + begin * width, .b_stride = width, .c = l->dv + (first + key) * width, .c_stride = width};
        product_panel(PRODUCT_ADD_TRANSPOSED, n, columns, product);
        product.a = l->ds + begin * APUS_ATTENTION_KEYS + key;
        product.b = l->queries + begin * width;
        product.c = l->dk + (first + key) * width;
        product_panel(PRODUCT_ADD_TRANSPOSED, n, columns, product);
    }
}

/// Step 1.
static void backward_pack_keys(
    const apus_attention_problem *p, const apus_kv_view *kv, const backward_layout *l, ptrdiff_t sequence,
    ptrdiff_t head,
    ptrdiff_t key_count) {
    const ptrdiff_t width = apus_attention_padded_width(p);
    row_prefetch next;
    for (ptrdiff_t first = 0; first < key_count; first += APUS_ATTENTION_KEYS) {
        const ptrdiff_t keys = tile_keys(first, key_count), after = first + APUS_ATTENTION_KEYS;
        const char *tile[APUS_ATTENTION_KEYS];
        prefetch_keys(&next, kv, p->head_width, sequence, head, after, tile_keys(after, key_count));
        key_rows(kv, false, sequence, head, first, keys, tile);
        pack_transposed(
            tile, kv->k.dtype, keys, p->head_width, l->keys_transposed + first * width, &next, APUS_LANES);
        for (ptrdiff_t j = 0; j < keys; j++) {
            pack_row(tile[j], kv->k.dtype, p->head_width, width, 1.0f, l->keys + (first + j) * width);
            prefetch_rows(&next, 1);
        }
        key_rows(kv, true, sequence, head, first, keys, tile);
        pack_transposed(tile, kv->v.dtype, keys, p->head_width, l->values_transposed + first * width, &next, 0);
    }
    memset(l->dk, 0, (size_t)(key_count * width) * sizeof(float));
    memset(l->dv, 0, (size_t)(key_count * width) * sizeof(float));
}

/// Step 2 for one row: packs q and dout, fetches lse in base 2.
static void backward_pack_query(
    const apus_attention_backward_call *call, const backward_layout *l, ptrdiff_t sequence, ptrdiff_t token,
    ptrdiff_t head,
    ptrdiff_t r, ptrdiff_t key_count) {
    const apus_attention_problem *p = call->problem;
    const ptrdiff_t width = apus_attention_padded_width(p);
    float *dout = l->douts + r * width, *scratch = l->dq + r * width;
    pack_row(rows_at(&p->q, token, head), p->q.dtype, p->head_width, width, p->scale * log2_e, l->queries + r * width);
    pack_row(rows_at(call->dout, token, head), call->dout->dtype, p->head_width, width, 1.0f, dout);
    pack_row(rows_at(call->out, token, head), call->out->dtype, p->head_width, width, 1.0f, scratch);
    vfloat delta = (vfloat)0.0f;
    for (ptrdiff_t d = 0; d < width; d += APUS_LANES) delta = vfma(vload(dout + d), vload(scratch + d), delta);
    l->delta[r] = vsum(delta);
    l->lse[r] = call->lse[token * p->query_heads + head] * log2_e;
    apus_attention_visible(p, sequence, token, key_count, &l->begin[r], &l->end[r]);
    memset(scratch, 0, (size_t)width * sizeof(float));
}

/// Lists what follows the tile of `rows` tokens from `token` on: its dq, and the inputs of the next tile of the same
/// head.
static void backward_prefetch(
    const apus_attention_backward_call *call, row_prefetch *next, ptrdiff_t token, ptrdiff_t rows, ptrdiff_t token_end,
    ptrdiff_t head) {
    prefetch_reset(next, call->problem->head_width, call->problem->q.dtype);
    for (ptrdiff_t r = 0; r < rows; r++) prefetch_add(next, output_at(call->dq, token + r, head));
    for (ptrdiff_t t = token + rows; t < token_end && t < token + rows + APUS_ATTENTION_ROWS; t++) {
        prefetch_add(next, rows_at(&call->problem->q, t, head));
        prefetch_add(next, rows_at(call->dout, t, head));
        prefetch_add(next, rows_at(call->out, t, head));
    }
}

void APUS_NAME(apus_attention_backward_unit)(
    const apus_attention_backward_call *call, ptrdiff_t sequence, ptrdiff_t key_head) {
    const apus_attention_problem *p = call->problem;
    const apus_kv_view *kv = call->kv;
    const ptrdiff_t group = p->query_heads / p->key_heads, width = apus_attention_padded_width(p);
    const ptrdiff_t key_count = apus_attention_key_count(kv, sequence), token_end = p->cu_q[sequence + 1];
    const backward_layout l = backward_lay_out(p, key_count, call->workspace);
    backward_pack_keys(p, kv, &l, sequence, key_head, key_count);

    row_prefetch next;
    for (ptrdiff_t head = key_head * group; head < (key_head + 1) * group; head++) {
        for (ptrdiff_t token = p->cu_q[sequence]; token < token_end; token += APUS_ATTENTION_ROWS) {
            const ptrdiff_t rows = token_end - token < APUS_ATTENTION_ROWS ? token_end - token : APUS_ATTENTION_ROWS;
            ptrdiff_t first_key = key_count, last_key = 0;
            for (ptrdiff_t r = 0; r < rows; r++) {
                backward_pack_query(call, &l, sequence, token + r, head, r, key_count);
                if (l.begin[r] < l.end[r] && l.begin[r] < first_key) first_key = l.begin[r];
                if (l.end[r] > last_key) last_key = l.end[r];
            }
            first_key = first_key / APUS_ATTENTION_KEYS * APUS_ATTENTION_KEYS;
            backward_prefetch(call, &next, token, rows, token_end, head);
            const ptrdiff_t tiles = (last_key - first_key + APUS_ATTENTION_KEYS - 1) / APUS_ATTENTION_KEYS;
            const ptrdiff_t panels = tiles * ((rows + TILE_ROWS - 1) / TILE_ROWS);
            const int fetch = panels > 0 ? (int)(next.count / panels) + 1 : 0;
            for (ptrdiff_t first = first_key; first < last_key; first += APUS_ATTENTION_KEYS) {
                backward_tile(p, &l, (int)rows, first, (int)tile_keys(first, last_key), &next, fetch);
            }
            for (ptrdiff_t r = 0; r < rows; r++) {
                unpack_row(
                    l.dq + r * width, p->head_width, p->scale, call->dq->dtype, output_at(call->dq, token + r, head));
            }
        }
    }

    // The packed queries carry scale * log2(e); ln(2) leaves the scale that dk needs.
    for (ptrdiff_t j = 0; j < key_count; j++) {
        const ptrdiff_t token = kv->cu_k[sequence] + j;
        unpack_row(l.dk + j * width, p->head_width, ln_2, call->dk->dtype, output_at(call->dk, token, key_head));
        unpack_row(l.dv + j * width, p->head_width, 1.0f, call->dv->dtype, output_at(call->dv, token, key_head));
    }
}
