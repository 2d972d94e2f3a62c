/* standin, a software stand-in for tests (see knobs.h): the environment variables that steer it,
 * and the counters it writes when the process ends. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "knobs.h"

atomic_ullong counters[COUNTER_TOTAL];

long knob(const char *name, long otherwise)
{
    const char *value = getenv(name);
    return value && *value ? strtol(value, NULL, 0) : otherwise;
}

/* STANDIN_FAIL="function=code,function@n=code": its calls from the n-th on (0 is the first) return
 * code. The result is that code, or 0 to go on. */
int knob_failure(const char *function, atomic_int *calls)
{
    const char *hanging = getenv("STANDIN_HANG");
    if (hanging && !strcmp(hanging, function)) for (;;) pause();
    int call = atomic_fetch_add(calls, 1);
    size_t length = strlen(function);
    if (knob("STANDIN_TRACE", 0)) fprintf(stderr, "standin: %s\n", function);
    for (const char *rule = getenv("STANDIN_FAIL"); rule && *rule;) {
        if (!strncmp(rule, function, length) && (rule[length] == '=' || rule[length] == '@')) {
            char *rest = (char *)rule + length;
            long from = *rest == '@' ? strtol(rest + 1, &rest, 10) : 0;
            if (call >= from && *rest == '=') return (int)strtol(rest + 1, NULL, 10);
        }
        rule = strchr(rule, ',');
        if (rule) rule++;
    }
    return 0;
}

/* For a test that wants to look while its process runs: ctypes finds it in libcuda.so.1. */
API unsigned long long standin_counter(const char *name)
{
#define X(counter) if (!strcmp(name, #counter)) return counters[COUNT_##counter];
    COUNTERS(X)
#undef X
    return ~0ull;
}

__attribute__((destructor)) static void write_counters(void)
{
    const char *path = getenv("STANDIN_STATS");
    FILE *file = path && *path ? fopen(path, "a") : NULL;
    if (!file) return;
    fprintf(file, "{\"pid\": %d", (int)getpid());
#define X(counter) fprintf(file, ", \"" #counter "\": %llu", \
                           (unsigned long long)counters[COUNT_##counter]);
    COUNTERS(X)
#undef X
    fprintf(file, "}\n");
    fclose(file);
}
