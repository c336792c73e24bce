#define _GNU_SOURCE
#include "apus_cores.h"

#include <sched.h>

int apus_available_cores(void) {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
    int count = CPU_COUNT(&set);
    return count > 0 ? count : 1;
}
