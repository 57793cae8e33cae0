/* A program that closes all descriptors, those of the library with them. Before the first use, or in a child of fork: nothing
 * is missing. Afterwards each call still ends, with a status that says what is wrong. Each scenario is a child. */
#include "check.h"

static const char *url;

static void closes(void)
{
    int fd;
    for (fd = 3; fd < 1024; fd++)
        close(fd);
}

static void on_acquired(void *user, dlock_status status, dlock_lease *lease, dlock_error *error)
{
    (void)error;
    CHECK(status != DLOCK_OK || lease);
    dlock_lease_free(lease);
    __sync_fetch_and_add((int *)user, 1);
}

/* An engine, at work; gives a lease that is held. */
static dlock_lease *used(dlock_client *client)
{
    dlock_options options = DLOCK_OPTIONS_INIT;
    dlock_lease *held = lease_of(client, "held", NULL), *lease = NULL;
    options.wait_ms = 20;
    CHECK(dlock_acquire(client, "held", &options, &lease, NULL) == DLOCK_TIMEOUT);
    return held;
}

static void before(void)
{
    closes();
    dlock_release(used(client_of(url)), NULL);
    CHECK(is_free_soon(client_of(url), "held"));
}

static void in_a_child(void)
{
    dlock_client *client = client_of(url);
    dlock_lease *held = used(client);
    pid_t pid = fork();
    if (pid == 0) {
        dlock_options options = DLOCK_OPTIONS_INIT;
        dlock_lease *lease = NULL;
        closes();
        options.wait_ms = 20;
        dlock_release(lease_of(client, "other", NULL), NULL);
        CHECK(dlock_acquire(client, "held", &options, &lease, NULL) == (strncmp(url, "memory", 6) ? DLOCK_TIMEOUT : DLOCK_OK));
        CHECK(dlock_lease_check(held, NULL) == DLOCK_NOT_HELD);
        fflush(stderr);
        _exit(checks_failed != 0);
    }
    CHECK(ended(pid) == 0);
    CHECK(dlock_release(held, NULL) == DLOCK_OK);
}

static void between(void)
{
    dlock_client *client = client_of(url);
    dlock_lease *held = used(client), *lease = NULL;
    dlock_error *err = NULL;
    int i, ran = 0, others[64];
    closes();
    for (i = 0; i < 2; i++) {
        CHECK(dlock_acquire(client, "held", NULL, &lease, &err) == DLOCK_BACKEND && !lease);
        CHECK(strstr(dlock_error_message(err), "closefrom") && !dlock_error_temporary(err));
        CHECK(dlock_acquire_async(client, "held", NULL, on_acquired, &ran, NULL, NULL) == DLOCK_OK || !ran);
        /* Nor does another's descriptor with the same number make it whole. */
        if (i == 0) {
            size_t n;
            for (n = 0; n < sizeof others / sizeof *others; n++)
                others[n] = open("/dev/null", O_RDONLY | O_CLOEXEC);
        }
    }
    dlock_lease_wait_lost(held, 20, &err);
    dlock_release(held, &err);
    dlock_lease_free(held);
    dlock_ping(client, &err);
    dlock_client_close(client, 100, &err);
    dlock_shutdown(100);
    dlock_error_free(err);
    for (i = 0; i < 64; i++)
        CHECK(fcntl(others[i], F_GETFD) != -1 || errno == EBADF);
}

static void child(const char *name, void (*scenario)(void))
{
    pid_t pid;
    fflush(NULL);
    pid = fork();
    if (pid == 0) {
        alarm(60); /* whoever hangs dies of it */
        scenario();
        fflush(NULL);
        exit(checks_failed != 0);
    }
    if (!CHECK(ended(pid) == 0))
        fprintf(stderr, "on %s: %s\n", url, name);
}

int main(void)
{
    const char *files = own_files();
    int i;
    for (i = 0; i < 2; i++) {
        url = i ? files : "memory://closefrom";
        child("before the first use", before);
        child("in a child of fork", in_a_child);
        child("between calls", between);
    }
    return report();
}
