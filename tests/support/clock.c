// A wall clock for one process, set from outside while it runs: loaded before libc (LD_PRELOAD).
//
// CLOCK_FILE names a file of eight bytes: by how many seconds the process's wall clock is ahead of the machine's, negative
// for behind. The monotonic clock stays as it is, as it does where an administrator or NTP sets a clock.
//
// Who waits until a time of the wall clock waits longer when the clock is set back meanwhile, as in the kernel. Waits for
// condition variables are cut into pieces for that.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t *ahead;

__attribute__((constructor)) static void find_clock(void) {
    const char *name = getenv("CLOCK_FILE");
    int file = name ? open(name, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) _exit(97);
    void *mapped = mmap(NULL, sizeof *ahead, PROT_READ, MAP_SHARED, file, 0);
    if (mapped == MAP_FAILED) _exit(97);
    ahead = mapped;
    close(file);
}

static int64_t seconds_ahead(void) {
    return ahead ? *ahead : 0;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int failed = (int)syscall(SYS_clock_gettime, clock, now);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += seconds_ahead();
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    (void)zone;
    struct timespec precise;
    clock_gettime(CLOCK_REALTIME, &precise);
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *into) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (into) *into = now.tv_sec;
    return now.tv_sec;
}

int timespec_get(struct timespec *now, int base) {
    return base == TIME_UTC && clock_gettime(CLOCK_REALTIME, now) == 0 ? base : 0;
}

static int64_t nanoseconds(const struct timespec *time) {
    return (int64_t)time->tv_sec * 1000000000 + time->tv_nsec;
}

int pthread_cond_timedwait(pthread_cond_t *restrict condition, pthread_mutex_t *restrict mutex,
                           const struct timespec *restrict until) {
    static int (*wait)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
    if (!wait) wait = (int (*)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *))dlsym(RTLD_NEXT, "pthread_cond_timedwait");
    // A time so early is one of the monotonic clock.
    if (until->tv_sec < 1000000000) return wait(condition, mutex, until);
    for (;;) {
        const int64_t piece = 20 * 1000000;
        struct timespec now;
        clock_gettime(CLOCK_REALTIME, &now);
        int64_t left = nanoseconds(until) - nanoseconds(&now);
        if (left < 0) left = 0;
        syscall(SYS_clock_gettime, CLOCK_REALTIME, &now);
        int64_t end = nanoseconds(&now) + (left < piece ? left : piece);
        struct timespec there = {.tv_sec = end / 1000000000, .tv_nsec = end % 1000000000};
        int woken = wait(condition, mutex, &there);
        if (woken != ETIMEDOUT || left <= piece) return woken;
    }
}

// In glibc the threads of C are those of POSIX.
int cnd_timedwait(cnd_t *restrict condition, mtx_t *restrict mutex, const struct timespec *restrict until) {
    switch (pthread_cond_timedwait((pthread_cond_t *)condition, (pthread_mutex_t *)mutex, until)) {
    case 0: return thrd_success;
    case ETIMEDOUT: return thrd_timedout;
    default: return thrd_error;
    }
}
