/* How many sessions are open, here or on the whole "machine" (see knobs.h). A real driver counts over
 * all processes, and takes back what a killed process held. With STANDIN_SEATS each session locks one
 * of as many files as there may be sessions: the kernel unlocks it, however its process ends. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>
#include "nvenc.h"

enum { NO_SEAT = -1, NO_FILE = -2 };

static atomic_int live;

static void journal(const char *what)
{
    const char *path = getenv("STANDIN_JOURNAL");
    int file = path && *path ? open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600) : -1;
    if (file < 0) return;
    char line[64];
    int size = snprintf(line, sizeof line, "%s %d\n", what, (int)getpid());
    if (write(file, line, (size_t)size) != size) perror("standin: journal");
    close(file);
}

/* A locked file of its own for this session, NO_FILE where nothing is shared, NO_SEAT if all are taken. */
static int locked_file(long limit)
{
    const char *directory = getenv("STANDIN_SEATS");
    char path[4096];
    if (!limit || !directory || !*directory) return NO_FILE;
    for (long i = 0; i < limit; i++) {
        snprintf(path, sizeof path, "%s/%ld", directory, i);
        int file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        if (file < 0) return NO_SEAT;
        if (!flock(file, LOCK_EX | LOCK_NB)) return file;
        close(file);
    }
    return NO_SEAT;
}

int nvenc_take_seat(int *seat)
{
    long limit = knob("STANDIN_MAX_SESSIONS", 0);
    int sessions = atomic_fetch_add(&live, 1) + 1;
    *seat = limit && sessions > limit ? NO_SEAT : locked_file(limit);
    if (*seat == NO_SEAT) {
        atomic_fetch_sub(&live, 1);
        COUNT(sessions_refused, 1);
        journal("refused");
        return 0;
    }
    COUNT(sessions_opened, 1);
    unsigned long long peak = counters[COUNT_sessions_peak];
    while ((unsigned)sessions > peak &&
           !atomic_compare_exchange_weak(&counters[COUNT_sessions_peak], &peak, sessions)) {}
    journal("opened");
    return 1;
}

void nvenc_leave_seat(int seat)
{
    journal("closed");
    if (seat >= 0) close(seat);
    atomic_fetch_sub(&live, 1);
    COUNT(sessions_closed, 1);
}
