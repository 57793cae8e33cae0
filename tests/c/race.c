/* A deliberate race, which a thread checker has to find; and the same with a lock of dlock, which it has to accept. */
#include "check.h"

static dlock_client *client;
static int plain;

static void *racing(void *with_lock)
{
    int i;
    for (i = 0; i < 100; i++) {
        dlock_lease *lease = with_lock ? lease_of(client, "plain", NULL) : NULL;
        plain++;
        dlock_lease_free(lease);
    }
    return NULL;
}

int main(int count, char **words)
{
    void *with_lock = count > 1 && strcmp(words[1], "locked") == 0 ? words : NULL;
    pthread_t threads[2];
    int i;
    client = client_of("memory://race");
    for (i = 0; i < 2; i++)
        threads[i] = started(racing, with_lock);
    for (i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    dlock_client_free(client);
    return report();
}
