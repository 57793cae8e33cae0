// A wall clock with an offset that changes while the program runs. This library is preloaded and reads nanoseconds from
// a mapped file. It calls no allocator and looks up no symbol, because a program's allocator may ask for the time while
// it starts.
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const _Atomic int64_t none;
static _Atomic(const _Atomic int64_t *) offset;

static int64_t ahead(void) {
    const _Atomic int64_t *at = atomic_load(&offset);
    if (!at) {
        const char *path = getenv("DLOCK_TEST_CLOCK");
        int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
        void *map = file < 0 ? MAP_FAILED : mmap(NULL, sizeof *at, PROT_READ, MAP_SHARED, file, 0);
        if (file >= 0) close(file);
        at = map == MAP_FAILED ? &none : map;
        atomic_store(&offset, at);
    }
    return atomic_load(at);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    const int64_t second = 1000000000;
    int failed = (int)syscall(SYS_clock_gettime, clock, now);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        int64_t sum = now->tv_sec * second + now->tv_nsec + ahead();
        now->tv_sec = sum / second;
        now->tv_nsec = sum % second;
    }
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec exact;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &exact)) return -1;
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *also) {
    struct timespec exact;
    if (clock_gettime(CLOCK_REALTIME, &exact)) return -1;
    if (also) *also = exact.tv_sec;
    return exact.tv_sec;
}
