#include "onednn_library.h"

#include <stdio.h>

#include "apus_onednn.h"

#ifdef APUS_HAVE_ONEDNN

#include <dlfcn.h>
#include <pthread.h>

static onednn_library library;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void open_library(void)
{
    char name[32];
    snprintf(name, sizeof name, "libdnnl.so.%d", DNNL_VERSION_MAJOR);
    void *handle = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (!handle) {
        snprintf(library.problem, sizeof library.problem, "%s not found: install oneDNN %d", name, DNNL_VERSION_MAJOR);
        return;
    }
#define ONEDNN_RESOLVE(symbol)                                                                                         \
    library.symbol = (__typeof__(library.symbol))dlsym(handle, #symbol);                                               \
    if (!library.symbol) {                                                                                             \
        snprintf(library.problem, sizeof library.problem, "%s has no %s", name, #symbol);                              \
        return;                                                                                                        \
    }
    ONEDNN_SYMBOLS(ONEDNN_RESOLVE)
#undef ONEDNN_RESOLVE
    library.omp_set_num_threads = (void (*)(int))dlsym(handle, "omp_set_num_threads");
    if (library.dnnl_version()->major != DNNL_VERSION_MAJOR)
        snprintf(library.problem, sizeof library.problem, "%s is oneDNN %d, compiled for %d", name,
                 library.dnnl_version()->major, DNNL_VERSION_MAJOR);
    else if (library.dnnl_engine_create(&library.engine, dnnl_cpu, 0) != dnnl_success)
        snprintf(library.problem, sizeof library.problem, "%s has no CPU engine", name);
}

const onednn_library *apus_onednn_library(void)
{
    pthread_once(&once, open_library);
    return &library;
}

int apus_onednn_available(void)
{
    return apus_onednn_library()->problem[0] == 0;
}

int apus_onednn_version(char *text, size_t size)
{
    const onednn_library *x = apus_onednn_library();
    if (x->problem[0]) {
        snprintf(text, size, "%s", x->problem);
        return 0;
    }
    const dnnl_version_t *version = x->dnnl_version();
    snprintf(text, size, "%d.%d.%d", version->major, version->minor, version->patch);
    return 1;
}

#else

int apus_onednn_available(void)
{
    return 0;
}

int apus_onednn_version(char *text, size_t size)
{
    snprintf(text, size, "built without oneDNN headers");
    return 0;
}

#endif
