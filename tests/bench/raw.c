/* The raw baselines: flock(2) with nothing around it. Loaded by bench.py. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdatomic.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Seconds for n pairs of lock and unlock on a descriptor that stays open. */
double flock_pairs(const char *path, long n)
{
    int fd = open(path, O_RDONLY | O_CREAT | O_CLOEXEC, 0600);
    double begun = now();
    for (long i = 0; i < n; i++) {
        if (flock(fd, LOCK_EX) || flock(fd, LOCK_UN))
            return -1;
    }
    double took = now() - begun;
    close(fd);
    return took;
}

static void pause_us(long us)
{
    if (us > 0) {
        struct timespec t = {us / 1000000, us % 1000000 * 1000};
        nanosleep(&t, 0);
    }
}

/* What all contenders for one key share: who had it last, and what happened. */
struct shared {
    _Atomic uint64_t owner, switches, grants, inside, overlaps, longest_us;
};

/* Takes and gives the lock for so long, blocked in the kernel while it waits. */
long flock_contend(const char *path, const char *shared, long id, double seconds, long hold_us, long think_us)
{
    int fd = open(path, O_RDONLY | O_CREAT | O_CLOEXEC, 0600), sfd = open(shared, O_RDWR | O_CLOEXEC);
    struct shared *s = mmap(0, sizeof *s, PROT_READ | PROT_WRITE, MAP_SHARED, sfd, 0);
    if (fd < 0 || s == MAP_FAILED)
        return -1;
    long grants = 0;
    double end = now() + seconds, asked;
    while ((asked = now()) < end) {
        if (flock(fd, LOCK_EX))
            return -1;
        uint64_t waited = (uint64_t)((now() - asked) * 1e6);
        if (waited > atomic_load(&s->longest_us))
            atomic_store(&s->longest_us, waited);
        if (atomic_fetch_add(&s->inside, 1))
            atomic_fetch_add(&s->overlaps, 1);
        if (atomic_exchange(&s->owner, (uint64_t)id) != (uint64_t)id)
            atomic_fetch_add(&s->switches, 1);
        atomic_fetch_add(&s->grants, 1);
        grants++;
        pause_us(hold_us);
        atomic_fetch_sub(&s->inside, 1);
        flock(fd, LOCK_UN);
        pause_us(think_us);
    }
    return grants;
}
