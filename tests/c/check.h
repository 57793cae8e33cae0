/* What the C tests share: a check that counts, a pause, chance, a folder of one's own. C99 and C++17. */
#ifndef CHECK_H
#define CHECK_H

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <dlock.h>

static int checks_passed, checks_failed;

#define CHECK(is) check((is) ? 1 : 0, #is, __FILE__, __LINE__)

static inline int check(int is, const char *text, const char *file, int line)
{
    __sync_fetch_and_add(is ? &checks_passed : &checks_failed, 1);
    if (!is) {
        fprintf(stderr, "%s:%d: failed: %s\n", file, line, text);
        fflush(stderr);
    }
    return is;
}

/* The last line, and what main returns. */
static inline int report(void)
{
    fflush(stderr);
    printf("%d passed, %d failed\n", checks_passed, checks_failed);
    return checks_failed != 0;
}

static inline void pause_ms(long ms)
{
    struct timespec t;
    t.tv_sec = ms / 1000;
    t.tv_nsec = ms % 1000 * 1000000;
    nanosleep(&t, NULL);
}

/* So many rounds, or a share of them where each is slow: under a checker. */
static inline int rounds(int many)
{
    const char *share = getenv("CHECK_SHARE");
    int part = share ? many / atoi(share) : many;
    return part < 1 ? 1 : part;
}

static inline unsigned chance(unsigned *state, unsigned below)
{
    *state = *state * 1664525u + 1013904223u;
    return (*state >> 10) % below;
}

static inline void *zeroed(size_t size)
{
    void *made = calloc(1, size);
    if (!made)
        abort();
    return made;
}

static inline pthread_t started(void *(*run)(void *), void *with)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, run, with) != 0)
        abort();
    return thread;
}

/* The URL of a new folder for lock files, which is left to the script to remove. */
static inline const char *own_files(void)
{
    static char url[512];
    const char *folder = getenv("TMPDIR");
    snprintf(url, sizeof url, "file://%s/locks-XXXXXX", folder ? folder : "/tmp");
    if (!mkdtemp(url + strlen("file://")))
        abort();
    return url;
}

static inline dlock_client *client_of(const char *url)
{
    dlock_client *client = NULL;
    dlock_error *err = NULL;
    CHECK(dlock_connect(url, &client, &err) == DLOCK_OK);
    if (err)
        fprintf(stderr, "%s\n", dlock_error_message(err));
    dlock_error_free(err);
    return client;
}

static inline dlock_lease *lease_of(dlock_client *client, const char *key, const dlock_options *options)
{
    dlock_lease *lease = NULL;
    dlock_error *err = NULL;
    CHECK(dlock_acquire(client, key, options, &lease, &err) == DLOCK_OK);
    if (err)
        fprintf(stderr, "%s\n", dlock_error_message(err));
    dlock_error_free(err);
    return lease;
}

/* Whether the key can be had within 5 s: it is not given back before that. */
static inline int is_free_soon(dlock_client *client, const char *key)
{
    dlock_options options = DLOCK_OPTIONS_INIT;
    dlock_lease *lease = NULL;
    dlock_status status;
    options.wait_ms = 5000;
    status = dlock_acquire(client, key, &options, &lease, NULL);
    dlock_lease_free(lease);
    return status == DLOCK_OK;
}

/* How a child ended: its exit code, or -1. */
static inline int ended(pid_t child)
{
    int status = 0;
    if (waitpid(child, &status, 0) != child || !WIFEXITED(status))
        return -1;
    return WEXITSTATUS(status);
}

#endif
