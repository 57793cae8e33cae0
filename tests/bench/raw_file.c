/* The raw baselines: flock(2) with nothing around it. Loaded by raw.py. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/file.h>
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

/* Takes and gives the lock for so long, blocked in the kernel while it waits. Writes when it held it, in nanoseconds, to
   the record; returns the longest wait in milliseconds, or less than zero. */
double flock_contend(const char *path, const char *record, double seconds, long hold_us, long think_us)
{
    int fd = open(path, O_RDONLY | O_CREAT | O_CLOEXEC, 0600);
    FILE *file = fopen(record, "w");
    if (fd < 0 || !file)
        return -1;
    double end = now() + seconds, asked, longest = 0;
    while ((asked = now()) < end) {
        if (flock(fd, LOCK_EX))
            return -1;
        double begun = now();
        if (begun - asked > longest)
            longest = begun - asked;
        pause_us(hold_us);
        uint64_t held[2] = {(uint64_t)(begun * 1e9), (uint64_t)(now() * 1e9)};
        fwrite(held, sizeof held, 1, file);
        flock(fd, LOCK_UN);
        pause_us(think_us);
    }
    fclose(file);
    close(fd);
    return longest * 1e3;
}
