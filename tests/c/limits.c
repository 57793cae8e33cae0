/* No descriptor left for the library's engine: DLOCK_BACKEND, temporary, which names the limit, as often as it is tried; and
 * nothing of a try is left. */
#include "check.h"

#include <sys/resource.h>

int main(void)
{
    dlock_client *client = client_of("memory://limits");
    dlock_lease *held = lease_of(client, "k", NULL), *lease = NULL;
    dlock_options options = DLOCK_OPTIONS_INIT;
    dlock_error *err = NULL;
    struct rlimit few, usual;
    int i;
    options.wait_ms = 50;
    CHECK(getrlimit(RLIMIT_NOFILE, &usual) == 0);
    few = usual;
    few.rlim_cur = 3;
    CHECK(setrlimit(RLIMIT_NOFILE, &few) == 0);
    CHECK(dlock_acquire(client, "k", &options, &lease, &err) == DLOCK_BACKEND && !lease);
    CHECK(dlock_error_status(err) == DLOCK_BACKEND && dlock_error_temporary(err));
    CHECK(strstr(dlock_error_message(err), "RLIMIT_NOFILE is 3"));
    for (i = 0; i < 100; i++)
        CHECK(dlock_acquire(client, "k", &options, &lease, NULL) == DLOCK_BACKEND);
    CHECK(dlock_lease_lost_fd(held) == -1);
    CHECK(dlock_lease_check(held, &err) == DLOCK_OK && !err);
    CHECK(setrlimit(RLIMIT_NOFILE, &usual) == 0);
    CHECK(dlock_acquire(client, "k", &options, &lease, &err) == DLOCK_TIMEOUT);
    CHECK(dlock_lease_lost_fd(held) >= 0);
    CHECK(dlock_release(held, &err) == DLOCK_OK);
    CHECK(dlock_acquire(client, "k", &options, &lease, &err) == DLOCK_OK);
    dlock_lease_free(held);
    dlock_lease_free(lease);
    dlock_client_free(client);
    dlock_error_free(err);
    return report();
}
