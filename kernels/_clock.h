/* Seconds on a clock that never goes back. */
#ifndef KBDFL_CLOCK_H
#define KBDFL_CLOCK_H

#ifdef _WIN32
#include <windows.h>

static double kb_monotonic_s(void) {
    LARGE_INTEGER now, second;
    QueryPerformanceCounter(&now);
    QueryPerformanceFrequency(&second);
    return (double)now.QuadPart / (double)second.QuadPart;
}
#else
#include <time.h>

static double kb_monotonic_s(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}
#endif

#endif
