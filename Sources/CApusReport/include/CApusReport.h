#ifndef CAPUS_REPORT_H
#define CAPUS_REPORT_H

#include <stddef.h>

/* A file of the folder `page`, as it was when this was compiled. */
typedef struct {
    const char *name;
    const unsigned char *bytes;
    size_t count;
} apus_page_part;

/* The parts of the report page, in the order in which they stand in it. */
const apus_page_part *apus_page_parts(size_t *count);

#endif
