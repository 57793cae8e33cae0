/* Workload f: a program that is linked with the library, and with an argument takes its first lock as well. With EMPTY
 * defined: one that does nothing at all. */
#ifdef EMPTY
int main(void)
{
    return 0;
}
#else
#include <dlock.h>

int main(int count, char **words)
{
    dlock_client *client;
    dlock_lease *lease;
    (void)words;
    if (count == 1)
        return dlock_version()[0] == 0;
    return dlock_connect(0, &client, 0) || dlock_acquire(client, "bench-f", 0, &lease, 0) || dlock_release(lease, 0);
}
#endif
