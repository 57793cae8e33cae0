/* Try once, wait with a timeout, or cancel: ways to limit the wait for a lock. */
#define _POSIX_C_SOURCE 200809L
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include <dlock.h>

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* How an acquire in the background ended: called once, on a thread of the library, also after a cancel. The lease would
 * be ours from here on. */
static void ended_as(void *user, dlock_status status, dlock_lease *lease, dlock_error *error)
{
    (void)error;
    dlock_lease_free(lease);
    if (write(*(int *)user, &status, sizeof status) != (ssize_t)sizeof status)
        perror("write");
}

int main(void)
{
    dlock_client *client = NULL;
    dlock_lease *other = NULL, *lease = NULL;
    dlock_list *contenders = NULL;
    dlock_error *err = NULL;
    dlock_options options = DLOCK_OPTIONS_INIT;
    dlock_op *op = NULL;
    dlock_status status;
    int told[2], failed = 1;

    if (pipe(told) != 0) {
        perror("pipe");
        return 1;
    }
    if (dlock_connect("memory://try-once", &client, &err) != DLOCK_OK)
        goto end;
    options.label = "the other worker";
    if (dlock_acquire(client, "nightly-report", &options, &other, &err) != DLOCK_OK)
        goto end;
    options.label = NULL;

    /* Now or never, as with pthread_mutex_trylock. */
    if (dlock_try_acquire(client, "nightly-report", NULL, &lease, NULL) != DLOCK_TIMEOUT)
        goto end;
    printf("busy, so this worker does something else\n");

    /* A wait that ends. The deadline is for the whole wait and never starts again. */
    double began = now();
    options.wait_ms = 200;
    if (dlock_acquire(client, "nightly-report", &options, &lease, &err) != DLOCK_TIMEOUT)
        goto end;
    printf("gave up after %.1f s: %s\n", now() - began, dlock_error_message(err));

    /* Who has it? */
    if (dlock_contenders(client, "nightly-report", &contenders, &err) != DLOCK_OK)
        goto end;
    for (size_t i = 0; i < dlock_list_count(contenders); i++) {
        const dlock_contender *contender = dlock_list_at(contenders, i);
        printf("held by '%s', process %ld\n", contender->label ? contender->label : "?", (long)contender->pid);
    }

    /* A wait that somebody ends: the pipe would be one of those that the loop of this program polls. */
    if (dlock_acquire_async(client, "nightly-report", NULL, ended_as, &told[1], &op, &err) != DLOCK_OK)
        goto end;
    dlock_cancel(op);
    if (read(told[0], &status, sizeof status) != (ssize_t)sizeof status || status != DLOCK_CANCELLED)
        goto end;
    printf("the one in the background: %s\n", dlock_strerror(status));

    if (dlock_release(other, &err) != DLOCK_OK)
        goto end;
    if (dlock_try_acquire(client, "nightly-report", NULL, &lease, &err) != DLOCK_OK)
        goto end;
    printf("free again\n");
    failed = 0;

end:
    if (failed)
        fprintf(stderr, "failed: %s\n", err ? dlock_error_message(err) : "not what was to be expected");
    dlock_error_free(err);
    dlock_list_free(contenders);
    dlock_lease_free(lease);
    dlock_lease_free(other);
    dlock_client_free(client);
    close(told[0]);
    close(told[1]);
    return failed;
}
