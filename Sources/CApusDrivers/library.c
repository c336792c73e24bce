#include "apus_library.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

static void *open_first(const char *names, int visibility, char *text, size_t size)
{
    snprintf(text, size, "no name was given");
    while (*names) {
        char name[256];
        size_t length = strcspn(names, " ");
        if (length > 0 && length < sizeof name) {
            memcpy(name, names, length);
            name[length] = 0;
            void *handle = dlopen(name, RTLD_NOW | visibility);
            if (handle) {
                snprintf(text, size, "%s", name);
                return handle;
            }
            const char *reason = dlerror();
            snprintf(text, size, "%s", reason ? reason : name);
        }
        names += length;
        names += strspn(names, " ");
    }
    return NULL;
}

static apus_library_status load(const char *names, int visibility, const char *const *symbols, size_t count, void *table,
                                char *text, size_t size)
{
    void *handle = open_first(names, visibility, text, size);
    if (!handle) return APUS_LIBRARY_MISSING;
    for (size_t i = 0; i < count; i++) {
        void *address = dlsym(handle, symbols[i]);
        if (!address) {
            snprintf(text, size, "%s", symbols[i]);
            return APUS_LIBRARY_INCOMPLETE;
        }
        // The fields of a table are addresses and nothing else; POSIX lets those of functions be copied as data pointers.
        memcpy((char *)table + i * sizeof address, &address, sizeof address);
    }
    return APUS_LIBRARY_LOADED;
}

apus_library_status apus_library_load(const char *names, const char *const *symbols, size_t count, void *table,
                                      char *text, size_t size)
{
    return load(names, RTLD_LOCAL, symbols, count, table, text, size);
}

apus_library_status apus_library_load_global(const char *names, const char *const *symbols, size_t count, void *table,
                                             char *text, size_t size)
{
    return load(names, RTLD_GLOBAL, symbols, count, table, text, size);
}
