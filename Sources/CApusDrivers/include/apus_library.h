#ifndef APUS_LIBRARY_H
#define APUS_LIBRARY_H

#include <stddef.h>

/* How the search for a library and its functions ended. */
typedef enum {
    APUS_LIBRARY_LOADED,
    /* No file of any of the names could be opened. */
    APUS_LIBRARY_MISSING,
    /* A file was opened, and a function is not in it. */
    APUS_LIBRARY_INCOMPLETE,
} apus_library_status;

/* A table declares its functions once, as a list of F(field, symbol, parameters); the two macros below make the fields
 * of the table, and the list of symbols in the order of the fields. */
#define APUS_FUNCTION_FIELD(field, symbol, parameters) int (*_Nonnull field) parameters;
#define APUS_FUNCTION_SYMBOL(field, symbol, parameters) #symbol,

/* Opens the first of the files `names`, separated by spaces, that there is, and fills `table` with the addresses of
 * `symbols`. A library that is loaded stays so until the process ends.
 *
 * `text` gets the name that was opened, or, without any, the loader's reason for the last, or the missing function. */
apus_library_status apus_library_load(const char *_Nonnull names, const char *_Nonnull const *_Nonnull symbols,
                                      size_t count, void *_Nonnull table, char *_Nonnull text, size_t size);

/* The same for a library whose own plug-ins look for its symbols: they become visible to all that is opened later. */
apus_library_status apus_library_load_global(const char *_Nonnull names, const char *_Nonnull const *_Nonnull symbols,
                                             size_t count, void *_Nonnull table, char *_Nonnull text, size_t size);

#endif
