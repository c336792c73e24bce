#ifndef CAPUS_CUDA_H
#define CAPUS_CUDA_H

#include <stddef.h>

/* A kernel file, as it was when this was compiled. */
typedef struct {
    const char *_Nonnull name;
    /* Ends in a zero that is not counted. */
    const char *_Nonnull text;
    size_t count;
    /* Whether it is included by others rather than compiled. */
    int is_header;
} apus_kernel_file;

/* The kernel files in the order of their names. */
const apus_kernel_file *_Nonnull apus_kernel_files(size_t *_Nonnull count);

#endif
