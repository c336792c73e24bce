/* Functions that the linked-in runtimes of Swift and C++ would take from a glibc newer than 2.34, the oldest that the
 * archive of `make dist` runs with: hypot and hypotf are 2.35's versions, arc4random is 2.36's.
 *
 * Hidden, so that libraries loaded later keep their own. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/random.h>

#pragma GCC visibility push(hidden)

/* Extended precision has the exponents of any square and eleven more bits than the result. */
double hypot(double x, double y)
{
    if (isinf(x) || isinf(y)) return INFINITY;
    return (double)__builtin_sqrtl((long double)x * x + (long double)y * y);
}

float hypotf(float x, float y)
{
    if (isinf(x) || isinf(y)) return INFINITY;
    return (float)__builtin_sqrt((double)x * x + (double)y * y);
}

uint32_t arc4random(void)
{
    uint32_t value;
    /* Four bytes are never given in part. */
    while (getrandom(&value, sizeof value, 0) != sizeof value) {}
    return value;
}

#pragma GCC visibility pop
