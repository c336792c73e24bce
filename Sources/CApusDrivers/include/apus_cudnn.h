#ifndef APUS_CUDNN_H
#define APUS_CUDNN_H

#include <stddef.h>

#include "apus_library.h"

/* cuDNN, as far as `apus doctor` names its version. */
typedef struct {
    /* 10000 times the major version and 100 times the minor one: 91400 is 9.14.0. */
    size_t (*_Nonnull version)(void);
} apus_cudnn_table;

/* The file names by which it is looked for. */
extern const char *_Nonnull const apus_cudnn_names;

/* Fills the table from the first of `names`; see apus_library_load. */
apus_library_status apus_cudnn_load(apus_cudnn_table *_Nonnull table, const char *_Nonnull names, char *_Nonnull text,
                                    size_t size);

#endif
