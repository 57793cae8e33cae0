/* Sixteen threads on the same handles: acquire, release, renew, free, all at once, on memory and on files. */
#include "check.h"

enum { THREADS = 16, KEYS = 6, ROUNDS = 3000 };

static dlock_client *client;
static dlock_lease *shared[KEYS]; /* read and replaced by everybody */
static dlock_error *errors[KEYS];
static int granted;

static const char *const keys[KEYS] = {"a", "b", "c", "d", "e", "f"};

static int one_of(dlock_status is, dlock_status a, dlock_status b, dlock_status c)
{
    return is == DLOCK_OK || is == a || is == b || is == c;
}

static void *at_random(void *value)
{
    unsigned seed = (unsigned)(uintptr_t)value;
    int i, many = rounds(ROUNDS);
    for (i = 0; i < many; i++) {
        unsigned place = chance(&seed, KEYS);
        dlock_lease *lease = __atomic_load_n(&shared[place], __ATOMIC_ACQUIRE), *fresh = NULL;
        dlock_error *err = NULL;
        dlock_options options = DLOCK_OPTIONS_INIT;
        options.wait_ms = chance(&seed, 2);
        switch (chance(&seed, 12)) {
        case 0:
        case 1:
        case 2:
        case 3:
            if (dlock_acquire(client, keys[place], &options, &fresh, &err) == DLOCK_OK) {
                __sync_fetch_and_add(&granted, 1);
                dlock_lease_free(__atomic_exchange_n(&shared[place], fresh, __ATOMIC_ACQ_REL));
            } else {
                CHECK(dlock_error_status(err) == DLOCK_TIMEOUT);
                dlock_error_free(__atomic_exchange_n(&errors[place], err, __ATOMIC_ACQ_REL));
                err = NULL;
            }
            break;
        case 4:
        case 5:
            CHECK(one_of(dlock_release(lease, &err), DLOCK_INVALID, DLOCK_LOST, DLOCK_INVALID));
            break;
        case 6:
            dlock_lease_free(lease);
            break;
        case 7:
            CHECK(one_of(dlock_renew(lease, 0, &err), DLOCK_INVALID, DLOCK_NOT_HELD, DLOCK_LOST));
            break;
        case 8:
            CHECK(one_of(dlock_lease_check(lease, &err), DLOCK_INVALID, DLOCK_NOT_HELD, DLOCK_LOST));
            CHECK(dlock_lease_valid_for_ms(lease) >= -1 && dlock_lease_fence(lease) >= 0);
            break;
        case 9:
            dlock_lease_token(lease);
            dlock_lease_key(lease);
            dlock_lease_lost_fd(lease);
            break;
        case 10:
            CHECK(one_of(dlock_lease_wait_lost(lease, chance(&seed, 3), &err), DLOCK_INVALID, DLOCK_NOT_HELD,
                         DLOCK_TIMEOUT));
            break;
        case 11:
            dlock_error_status(__atomic_load_n(&errors[place], __ATOMIC_ACQUIRE));
            break;
        }
        dlock_error_free(err);
    }
    return NULL;
}

static void shared_handles(const char *url)
{
    pthread_t threads[THREADS];
    int i;
    client = client_of(url);
    granted = 0;
    for (i = 0; i < THREADS; i++)
        threads[i] = started(at_random, (void *)(uintptr_t)(i + 1));
    for (i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    for (i = 0; i < KEYS; i++) {
        dlock_lease_free(shared[i]);
        dlock_error_free(errors[i]);
        shared[i] = NULL;
        errors[i] = NULL;
        CHECK(is_free_soon(client, keys[i]));
    }
    printf("%s: %d granted\n", dlock_backend(client), granted);
    CHECK(granted > 0);
    dlock_client_free(client);
}

static int balance; /* plain: only the lock keeps the threads apart */

static void *deposit(void *value)
{
    int i, many = rounds(500);
    (void)value;
    for (i = 0; i < many; i++) {
        dlock_lease *lease = lease_of(client, "account", NULL);
        balance++;
        CHECK(dlock_release(lease, NULL) == DLOCK_OK);
        dlock_lease_free(lease);
    }
    return NULL;
}

static void exclusion(const char *url)
{
    pthread_t threads[THREADS];
    int i;
    client = client_of(url);
    balance = 0;
    for (i = 0; i < THREADS; i++)
        threads[i] = started(deposit, NULL);
    for (i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    CHECK(balance == THREADS * rounds(500));
    dlock_client_free(client);
}

/* One lease, freed by all at once: once. */
static void *free_it(void *value)
{
    pthread_barrier_t *start = (pthread_barrier_t *)value;
    int i;
    for (i = 0; i < rounds(200); i++) {
        if (pthread_barrier_wait(start) == PTHREAD_BARRIER_SERIAL_THREAD)
            __atomic_store_n(&shared[0], lease_of(client, "k", NULL), __ATOMIC_RELEASE);
        pthread_barrier_wait(start);
        dlock_release(__atomic_load_n(&shared[0], __ATOMIC_ACQUIRE), NULL);
        dlock_lease_free(__atomic_load_n(&shared[0], __ATOMIC_ACQUIRE));
    }
    return NULL;
}

static void freed_by_all(void)
{
    pthread_t threads[THREADS];
    pthread_barrier_t start;
    int i;
    client = client_of("memory://freed-by-all");
    pthread_barrier_init(&start, NULL, THREADS);
    for (i = 0; i < THREADS; i++)
        threads[i] = started(free_it, &start);
    for (i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    pthread_barrier_destroy(&start);
    CHECK(is_free_soon(client, "k"));
    dlock_client_free(client);
}

int main(void)
{
    const char *files = own_files();
    exclusion("memory://threads");
    exclusion(files);
    shared_handles("memory://threads");
    shared_handles(files);
    freed_by_all();
    CHECK(dlock_shutdown(5000) == DLOCK_OK);
    return report();
}
