#ifndef APUS_CORES_H
#define APUS_CORES_H

/// Number of cores that the calling process may run on (its affinity mask, which launchers narrow), at least 1.
int apus_available_cores(void);

#endif
