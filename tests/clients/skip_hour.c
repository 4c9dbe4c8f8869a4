/* Preloaded into a process, it lets its monotonic clock skip an hour whenever SIGUSR1 comes, so
 * that what is due once an hour can be seen. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <time.h>

static volatile sig_atomic_t hours;

static void skip(int signal) {
    (void)signal;
    hours++;
}

__attribute__((constructor)) static void listen_for_signal(void) {
    signal(SIGUSR1, skip);
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, time);
    if (result == 0 && (clock == CLOCK_MONOTONIC || clock == CLOCK_BOOTTIME)) {
        time->tv_sec += hours * 3601L;
    }
    return result;
}
