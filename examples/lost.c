/* A lost lock stops the work.
 *
 * You can lose a lock while you hold it, for example by dlock_break_lock, a suspended machine or a dead server. In this
 * example the limit max_hold ends the lease, so a job that hangs doesn't block the other workers for ever. */
#define _POSIX_C_SOURCE 200809L
#include <poll.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include <dlock.h>

/* Asks between the parts of the work; how many were done before the answer was no. */
static int ask(dlock_lease *lease, dlock_error **err)
{
    const struct timespec part = {0, 20000000};
    int done = 0;
    while (done < 100 && dlock_lease_check(lease, err) == DLOCK_OK) {
        nanosleep(&part, NULL);
        done++;
    }
    return done;
}

/* Waits for input and for the loss, whichever comes first; true: the loss. The descriptor is the lease's: not ours to
 * read or to close. */
static int told(dlock_lease *lease, int input)
{
    struct pollfd both[2] = {{input, POLLIN, 0}, {dlock_lease_lost_fd(lease), POLLIN, 0}};
    return poll(both, 2, 10000) == 1 && (both[1].revents & POLLIN) && dlock_lease_valid_for_ms(lease) == 0;
}

int main(void)
{
    dlock_client *client = NULL;
    dlock_lease *first = NULL, *second = NULL, *next = NULL;
    dlock_error *err = NULL;
    dlock_options options = DLOCK_OPTIONS_INIT;
    int silent[2], done, failed = 1;

    options.max_hold_ms = 300;
    if (pipe(silent) != 0) {
        perror("pipe");
        return 1;
    }
    if (dlock_connect("memory://lost", &client, &err) != DLOCK_OK)
        goto end;

    /* To ask. */
    if (dlock_acquire(client, "import", &options, &first, &err) != DLOCK_OK)
        goto end;
    done = ask(first, &err);
    if (done == 0 || done == 100 || dlock_error_status(err) != DLOCK_LOST)
        goto end;
    printf("stopped after %d of 100 parts: %s\n", done, dlock_error_message(err));

    /* To be told, in the loop that a program has anyway. */
    if (dlock_acquire(client, "import", &options, &second, &err) != DLOCK_OK)
        goto end;
    if (!told(second, silent[0]))
        goto end;
    printf("told by the descriptor\n");
    if (dlock_release(second, &err) != DLOCK_LOST)
        goto end;

    options.max_hold_ms = 0;
    options.wait_ms = 1000;
    if (dlock_acquire(client, "import", &options, &next, &err) != DLOCK_OK)
        goto end;
    printf("the next worker has it\n");
    failed = 0;

end:
    if (failed)
        fprintf(stderr, "failed: %s\n", err ? dlock_error_message(err) : "not what was to be expected");
    dlock_error_free(err);
    dlock_lease_free(first);
    dlock_lease_free(second);
    dlock_lease_free(next);
    dlock_client_free(client);
    close(silent[0]);
    close(silent[1]);
    return failed;
}
