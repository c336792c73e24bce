#ifndef APUS_NVRTC_H
#define APUS_NVRTC_H

#include <stddef.h>

#include "apus_library.h"

/* NVRTC, the run-time compiler of CUDA C++ (NVRTC documentation, as of version 12.0). Codes: 0 for success. */

typedef struct apus_nvrtc_program_object *apus_nvrtc_program;

#define APUS_NVRTC_FUNCTIONS(F)                                                                                        \
    F(version, nvrtcVersion, (int *_Nonnull major, int *_Nonnull minor))                                               \
    F(create_program, nvrtcCreateProgram,                                                                              \
      (apus_nvrtc_program _Nullable *_Nonnull program, const char *_Nonnull source, const char *_Nullable name,        \
       int header_count, const char *_Nullable const *_Nullable headers,                                               \
       const char *_Nullable const *_Nullable header_names))                                                           \
    F(destroy_program, nvrtcDestroyProgram, (apus_nvrtc_program _Nullable *_Nonnull program))                          \
    F(compile_program, nvrtcCompileProgram,                                                                            \
      (apus_nvrtc_program _Nonnull program, int option_count, const char *_Nullable const *_Nullable options))         \
    F(log_size, nvrtcGetProgramLogSize, (apus_nvrtc_program _Nonnull program, size_t *_Nonnull size))                  \
    F(log, nvrtcGetProgramLog, (apus_nvrtc_program _Nonnull program, char *_Nonnull text))                             \
    F(cubin_size, nvrtcGetCUBINSize, (apus_nvrtc_program _Nonnull program, size_t *_Nonnull size))                     \
    F(cubin, nvrtcGetCUBIN, (apus_nvrtc_program _Nonnull program, char *_Nonnull bytes))

typedef struct {
    APUS_NVRTC_FUNCTIONS(APUS_FUNCTION_FIELD)
    /* The name of a code; never null. Last, because it alone returns no code. */
    const char *_Nonnull (*_Nonnull error_name)(int code);
} apus_nvrtc_table;

/* The file names by which it is looked for, the newest first. */
extern const char *_Nonnull const apus_nvrtc_names;

/* Fills the table from the first of `names`; see apus_library_load. */
apus_library_status apus_nvrtc_load(apus_nvrtc_table *_Nonnull table, const char *_Nonnull names, char *_Nonnull text,
                                    size_t size);

#endif
