#include "apus_onednn.h"
#include "onednn_library.h"

// Creating a primitive compiles code: 0.3 to 0.4 ms, as long as a whole product of 64 tokens. The number of tokens
// changes with every batch, so it never appears in a cached primitive: it is left open where that costs no speed
// (B stored k x n), and cut into powers of two elsewhere. Every other size is a property of the model.
//
// Each calling thread has its own cache and its own stream, and is set to one OpenMP thread before it creates or
// runs anything. A primitive made for another number of threads would run badly; here the number is always one.

#ifdef APUS_HAVE_ONEDNN

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum {
    CACHE_SETS = 64,
    CACHE_WAYS = 4,
    LARGEST_PIECE = 1024,
};

typedef struct shape_key {
    int64_t m, n, k, lda, ldb, ldc;
    float beta;
    uint8_t type, c_type, a_transposed, b_transposed;
} shape_key;

typedef struct cache_entry {
    shape_key key;
    uint64_t used;
    dnnl_primitive_t primitive;
    /// For A, B and C. NULL where the sizes are open.
    dnnl_memory_t memory[3];
} cache_entry;

typedef struct thread_cache {
    dnnl_stream_t stream;
    uint64_t clock;
    cache_entry entries[CACHE_SETS][CACHE_WAYS];
} thread_cache;

static pthread_key_t cache_key;
static pthread_once_t cache_once = PTHREAD_ONCE_INIT;

static void release_entry(const onednn_library *x, cache_entry *entry)
{
    for (int i = 0; i < 3; i++)
        if (entry->memory[i])
            x->dnnl_memory_destroy(entry->memory[i]);
    if (entry->primitive)
        x->dnnl_primitive_destroy(entry->primitive);
    memset(entry, 0, sizeof *entry);
}

static void release_cache(void *pointer)
{
    const onednn_library *x = apus_onednn_library();
    thread_cache *cache = pointer;
    for (int i = 0; i < CACHE_SETS * CACHE_WAYS; i++)
        release_entry(x, &cache->entries[0][0] + i);
    x->dnnl_stream_destroy(cache->stream);
    free(cache);
}

static void create_cache_key(void)
{
    pthread_key_create(&cache_key, release_cache);
}

static thread_cache *this_thread(const onednn_library *x)
{
    pthread_once(&cache_once, create_cache_key);
    thread_cache *cache = pthread_getspecific(cache_key);
    if (cache)
        return cache;
    if (x->omp_set_num_threads)
        x->omp_set_num_threads(1);
    cache = calloc(1, sizeof *cache);
    if (cache && x->dnnl_stream_create(&cache->stream, x->engine, dnnl_stream_default_flags) != dnnl_success) {
        free(cache);
        return NULL;
    }
    if (cache)
        pthread_setspecific(cache_key, cache);
    return cache;
}

// MARK: what differs between the major versions

#if DNNL_VERSION_MAJOR >= 3
typedef dnnl_memory_desc_t descriptor;
#define DESCRIPTOR_ARGUMENT(d) (d)
#else
typedef dnnl_memory_desc_t descriptor;
#define DESCRIPTOR_ARGUMENT(d) (&(d))
#endif

/// A rows x columns matrix whose storage is row-major, or row-major of its transpose.
static int describe(const onednn_library *x, descriptor *d, int64_t rows, int64_t columns, int64_t stride,
                    int transposed, int type)
{
    dnnl_dims_t dims = {rows, columns}, strides = {transposed ? 1 : stride, transposed ? stride : 1};
    dnnl_data_type_t data = type == APUS_BF16 ? dnnl_bf16 : dnnl_f32;
#if DNNL_VERSION_MAJOR >= 3
    return x->dnnl_memory_desc_create_with_strides(d, 2, dims, data, strides) == dnnl_success;
#else
    return x->dnnl_memory_desc_init_by_strides(d, 2, dims, data, strides) == dnnl_success;
#endif
}

static void discard(const onednn_library *x, descriptor d[3])
{
#if DNNL_VERSION_MAJOR >= 3
    for (int i = 0; i < 3; i++)
        if (d[i])
            x->dnnl_memory_desc_destroy(d[i]);
#else
    (void)x, (void)d;
#endif
}

static int create_description(const onednn_library *x, dnnl_primitive_desc_t *result, descriptor d[3],
                              dnnl_primitive_attr_t attributes)
{
#if DNNL_VERSION_MAJOR >= 3
    return x->dnnl_matmul_primitive_desc_create(result, x->engine, d[0], d[1], NULL, d[2], attributes) == dnnl_success;
#else
    dnnl_matmul_desc_t matmul;
    return x->dnnl_matmul_desc_init(&matmul, &d[0], &d[1], NULL, &d[2]) == dnnl_success &&
           x->dnnl_primitive_desc_create(result, &matmul, attributes, x->engine, NULL) == dnnl_success;
#endif
}

static int append_sum(const onednn_library *x, dnnl_post_ops_t operations, float beta)
{
#if DNNL_VERSION_MAJOR >= 3
    return x->dnnl_post_ops_append_sum(operations, beta, 0, dnnl_data_type_undef) == dnnl_success;
#else
    return x->dnnl_post_ops_append_sum(operations, beta) == dnnl_success;
#endif
}

// MARK: primitives

static int describe_all(const onednn_library *x, descriptor d[3], const shape_key *s, int64_t m)
{
    memset(d, 0, 3 * sizeof *d);
    return describe(x, &d[0], m, s->k, s->lda, s->a_transposed, s->type) &&
           describe(x, &d[1], s->k, s->n, s->ldb, s->b_transposed, s->type) &&
           describe(x, &d[2], m, s->n, s->ldc, 0, s->c_type);
}

static int create_memory(const onednn_library *x, dnnl_memory_t memory[3], descriptor d[3])
{
    for (int i = 0; i < 3; i++)
        if (x->dnnl_memory_create(&memory[i], DESCRIPTOR_ARGUMENT(d[i]), x->engine, DNNL_MEMORY_NONE) != dnnl_success)
            return 0;
    return 1;
}

static int create_primitive(const onednn_library *x, cache_entry *entry, const shape_key *key)
{
    dnnl_primitive_attr_t attributes = NULL;
    dnnl_post_ops_t operations = NULL;
    dnnl_primitive_desc_t description = NULL;
    descriptor d[3];
    int ok = describe_all(x, d, key, key->m);
    if (ok && key->beta != 0)
        ok = x->dnnl_primitive_attr_create(&attributes) == dnnl_success &&
             x->dnnl_post_ops_create(&operations) == dnnl_success && append_sum(x, operations, key->beta) &&
             x->dnnl_primitive_attr_set_post_ops(attributes, operations) == dnnl_success;
    ok = ok && create_description(x, &description, d, attributes) &&
         x->dnnl_primitive_create(&entry->primitive, description) == dnnl_success;
    if (ok && key->m != DNNL_RUNTIME_DIM_VAL)
        ok = create_memory(x, entry->memory, d);
    if (description)
        x->dnnl_primitive_desc_destroy(description);
    if (operations)
        x->dnnl_post_ops_destroy(operations);
    if (attributes)
        x->dnnl_primitive_attr_destroy(attributes);
    discard(x, d);
    if (!ok) {
        release_entry(x, entry);
        return 0;
    }
    entry->key = *key;
    return 1;
}

static uint64_t hash(const shape_key *key)
{
    const unsigned char *bytes = (const unsigned char *)key;
    uint64_t h = 14695981039346656037u;
    for (size_t i = 0; i < sizeof *key; i++)
        h = (h ^ bytes[i]) * 1099511628211u;
    return h ^ h >> 32;
}

/// The primitive of `key`, made in place of the least recently used one of its set if need be.
static cache_entry *find(const onednn_library *x, thread_cache *cache, const shape_key *key)
{
    cache_entry *set = cache->entries[hash(key) % CACHE_SETS], *oldest = set;
    for (cache_entry *entry = set; entry < set + CACHE_WAYS; entry++) {
        if (entry->primitive && memcmp(&entry->key, key, sizeof *key) == 0) {
            entry->used = ++cache->clock;
            return entry;
        }
        if (entry->used < oldest->used)
            oldest = entry;
    }
    release_entry(x, oldest);
    if (!create_primitive(x, oldest, key))
        return NULL;
    oldest->used = ++cache->clock;
    return oldest;
}

/// Pieces until the thread's next failure that a test asked for; negative for none.
static _Thread_local ptrdiff_t pieces_before_failure = -1;

void apus_onednn_fail_after(ptrdiff_t pieces)
{
    pieces_before_failure = pieces;
}

/// One piece of a product. A piece that fails has written nothing.
static int run_piece(const onednn_library *x, thread_cache *cache, const shape_key *key, int64_t m, const void *a,
                     const void *b, void *c)
{
    if (pieces_before_failure == 0)
        return 0;
    if (pieces_before_failure > 0)
        pieces_before_failure--;
    cache_entry *entry = find(x, cache, key);
    if (!entry)
        return 0;
    dnnl_memory_t open[3] = {0}, *memory = entry->memory;
    int ok = 1;
    if (key->m == DNNL_RUNTIME_DIM_VAL) {
        descriptor d[3];
        memory = open;
        ok = describe_all(x, d, key, m) && create_memory(x, open, d);
        discard(x, d);
    }
    void *data[3] = {(void *)a, (void *)b, c};
    for (int i = 0; ok && i < 3; i++)
        ok = x->dnnl_memory_set_data_handle(memory[i], data[i]) == dnnl_success;
    if (ok) {
        dnnl_exec_arg_t arguments[3] = {
            {DNNL_ARG_SRC, memory[0]}, {DNNL_ARG_WEIGHTS, memory[1]}, {DNNL_ARG_DST, memory[2]}};
        ok = x->dnnl_primitive_execute(entry->primitive, cache->stream, 3, arguments) == dnnl_success;
    }
    for (int i = 0; i < 3; i++)
        if (open[i])
            x->dnnl_memory_destroy(open[i]);
    return ok;
}

static ptrdiff_t largest_piece(ptrdiff_t rest)
{
    ptrdiff_t piece = LARGEST_PIECE;
    while (piece > rest)
        piece /= 2;
    return piece;
}

int apus_onednn_supports(const apus_gemm_args *g)
{
    return !g->a_rows && !g->b_rows && !g->batch_invariant && g->alpha == 1 && g->a_type == g->b_type &&
           (g->c_type == APUS_F32 || g->a_type == APUS_BF16) && apus_onednn_available();
}

int apus_onednn_gemm(const apus_gemm_args *g, apus_gemm_args *rest)
{
    const onednn_library *x = apus_onednn_library();
    thread_cache *cache = x->problem[0] ? NULL : this_thread(x);
    apus_gemm_args left = *g;
    if (rest)
        *rest = left;
    if (!cache)
        return APUS_GEMM_FAILED;
    shape_key key;
    memset(&key, 0, sizeof key);
    key.n = g->n, key.lda = g->lda, key.ldb = g->ldb, key.ldc = g->ldc;
    key.type = (uint8_t)g->a_type, key.c_type = (uint8_t)g->c_type;
    key.a_transposed = g->a_transposed != 0, key.b_transposed = g->b_transposed != 0;
    key.k = g->k;
    const ptrdiff_t size = g->a_type == APUS_BF16 ? 2 : 4, c_size = g->c_type == APUS_BF16 ? 2 : 4;
    const int is_open = !key.a_transposed && !key.b_transposed;
    do {
        // Weight gradient: the tokens are k. Pieces of k would round a bf16 result more than once.
        const int cuts_k = key.a_transposed && g->c_type == APUS_F32;
        const ptrdiff_t m = key.a_transposed || is_open ? left.m : largest_piece(left.m);
        key.m = is_open ? DNNL_RUNTIME_DIM_VAL : m;
        key.k = cuts_k ? largest_piece(left.k) : left.k;
        key.beta = left.beta;
        if (!run_piece(x, cache, &key, m, left.a, left.b, left.c)) {
            if (rest)
                *rest = left;
            return APUS_GEMM_FAILED;
        }
        if (cuts_k) {
            left.a = (const char *)left.a + key.k * g->lda * size;
            left.b = (const char *)left.b + key.k * (key.b_transposed ? 1 : g->ldb) * size;
            left.k -= key.k, left.beta = 1;
        } else {
            left.a = (const char *)left.a + m * g->lda * size;
            left.c = (char *)left.c + m * g->ldc * c_size;
            left.m -= m;
        }
    } while (left.m > 0 && left.k > 0);
    return APUS_GEMM_OK;
}

#else

int apus_onednn_supports(const apus_gemm_args *g)
{
    (void)g;
    return 0;
}

int apus_onednn_gemm(const apus_gemm_args *g, apus_gemm_args *rest)
{
    if (rest)
        *rest = *g;
    return APUS_GEMM_FAILED;
}

void apus_onednn_fail_after(ptrdiff_t pieces)
{
    (void)pieces;
}

#endif
