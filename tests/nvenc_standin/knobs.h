/* standin: a software stand-in for NVIDIA's libcuda.so.1 and libnvidia-encode.so.1, so that tests
 * can run the real Python bindings on a machine without a GPU. For tests only: it is never
 * shipped, and proves nothing about speed or picture quality.
 *
 * This header is what the files share: the knobs (environment variables, see README.md), the
 * counters, and what the encoder asks of the CUDA part. */
#pragma once
#include <stdatomic.h>
#include <stddef.h>

#define API __attribute__((visibility("default")))

/* ---- knobs.c ------------------------------------------------------------------------------- */

#define COUNTERS(X)                                                                              \
    X(h2d_pinned_bytes) X(h2d_pageable_bytes) X(h2d_pinned_copies) X(h2d_pageable_copies)        \
    X(h2d_async_copies) X(d2h_bytes) X(d2d_bytes)                                                \
    X(device_allocs) X(device_frees) X(pinned_allocs) X(pinned_frees)                            \
    X(contexts_created) X(contexts_destroyed)                                                    \
    X(sessions_opened) X(sessions_closed) X(sessions_peak) X(sessions_refused)                   \
    X(frames_in) X(packets_out) X(idr_out) X(bytes_out)

#define X(name) COUNT_##name,
enum { COUNTERS(X) COUNTER_TOTAL };
#undef X

extern atomic_ullong counters[COUNTER_TOTAL];
#define COUNT(name, by) atomic_fetch_add(&counters[COUNT_##name], (unsigned long long)(by))

long knob(const char *name, long otherwise);            /* an environment variable's number */
int knob_failure(const char *function, atomic_int *calls);

/* First statement of every entry point: applies STANDIN_FAIL (and STANDIN_TRACE) to it. */
#define ENTER()                                                                                  \
    do {                                                                                         \
        static atomic_int calls_so_far;                                                          \
        int failure = knob_failure(__func__, &calls_so_far);                                     \
        if (failure) return failure;                                                             \
    } while (0)

/* ---- cuda_driver.c, cuda_memory.c ---------------------------------------------------------- */

int cuda_context_alive(const void *context);
int cuda_context_device(const void *context);
int cuda_device_memory(const void *start, size_t size); /* does one live allocation hold it all? */
void cuda_finish_copies(void);                          /* see STANDIN_LATE */
