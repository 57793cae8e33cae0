/* Acquires in the background: the callback comes once, may do anything, and is told of cancels. */
#include "check.h"

enum { SENDERS = 4, KEYS = 4, MANY = 1000 };

struct call {
    dlock_client *client;
    dlock_op *op;
    int ran;
    dlock_status status;
};

static int running, all_done;

static const char *key_of(unsigned number)
{
    static const char *const keys[KEYS] = {"a", "b", "c", "d"};
    return keys[number % KEYS];
}

static int until(const int *what, int many)
{
    int i;
    for (i = 0; i < 30000 && __sync_fetch_and_add((int *)what, 0) < many; i++)
        pause_ms(1);
    return __sync_fetch_and_add((int *)what, 0) == many;
}

/* Takes every way out of a lease, and calls back into the library from each. */
static void on_acquired(void *user, dlock_status status, dlock_lease *lease, dlock_error *error)
{
    struct call *call = (struct call *)user;
    unsigned way = (unsigned)dlock_lease_fence(lease) % 3;
    call->status = status;
    CHECK((status == DLOCK_OK) == (lease != NULL) && (status != DLOCK_OK) == (error != NULL));
    if (status == DLOCK_OK) {
        CHECK(dlock_lease_check(lease, NULL) == DLOCK_OK);
        if (way == 0)
            CHECK(dlock_release(lease, NULL) == DLOCK_OK);
        if (way == 1) {
            dlock_lease *more = NULL;
            CHECK(dlock_acquire(call->client, "inside", NULL, &more, NULL) == DLOCK_OK);
            dlock_lease_free(more);
        }
        dlock_lease_free(lease);
    } else {
        CHECK(status == DLOCK_CANCELLED || status == DLOCK_TIMEOUT);
        CHECK(dlock_error_status(error) == status && strcmp(dlock_error_message(error), "no error") != 0);
        if (way == 0)
            dlock_error_free(error); /* early: the library's own free finds nothing */
    }
    __sync_fetch_and_add(&call->ran, 1);
    __sync_fetch_and_add(&all_done, 1);
}

struct sender {
    dlock_client *client;
    struct call *calls;
    unsigned seed;
    int many;
};

static void *send_all(void *value)
{
    struct sender *sender = (struct sender *)value;
    int i;
    for (i = 0; i < sender->many; i++) {
        struct call *call = &sender->calls[i];
        dlock_options options = DLOCK_OPTIONS_INIT;
        dlock_op *op = NULL;
        options.wait_ms = chance(&sender->seed, 4) ? -1 : (int64_t)chance(&sender->seed, 5);
        call->client = sender->client;
        CHECK(dlock_acquire_async(sender->client, key_of(chance(&sender->seed, KEYS)), &options, on_acquired, call, &op,
                                  NULL) == DLOCK_OK && op);
        call->op = op;
        if (chance(&sender->seed, 2)) {
            dlock_status status = dlock_cancel(op);
            CHECK(status == DLOCK_OK || status == DLOCK_INVALID);
            if (chance(&sender->seed, 2))
                dlock_cancel(op);
        }
    }
    return NULL;
}

static void each_once(dlock_client *client)
{
    int i, many = rounds(MANY) / SENDERS * SENDERS, told[DLOCK_DEADLOCK + 1] = {0};
    struct call *calls = (struct call *)zeroed((size_t)many * sizeof *calls);
    struct sender senders[SENDERS];
    pthread_t threads[SENDERS];
    dlock_lease *held[KEYS];
    all_done = 0;
    for (i = 0; i < KEYS; i++)
        held[i] = lease_of(client, key_of((unsigned)i), NULL);
    for (i = 0; i < SENDERS; i++) {
        senders[i].client = client;
        senders[i].many = many / SENDERS;
        senders[i].calls = calls + i * senders[i].many;
        senders[i].seed = (unsigned)i + 1;
        threads[i] = started(send_all, &senders[i]);
    }
    pause_ms(20);
    for (i = 0; i < KEYS; i++)
        dlock_lease_free(held[i]);
    for (i = 0; i < SENDERS; i++)
        pthread_join(threads[i], NULL);
    CHECK(until(&all_done, many));
    pause_ms(100); /* one too many would come now */
    CHECK(__sync_fetch_and_add(&all_done, 0) == many);
    for (i = 0; i < many; i++) {
        CHECK(calls[i].ran == 1);
        CHECK(dlock_cancel(calls[i].op) == DLOCK_INVALID);
        told[calls[i].status]++;
    }
    printf("%d told: %d granted, %d cancelled, %d timed out\n", many, told[DLOCK_OK], told[DLOCK_CANCELLED],
           told[DLOCK_TIMEOUT]);
    CHECK(told[DLOCK_OK] && told[DLOCK_CANCELLED]); /* or it showed nothing */
    for (i = 0; i < KEYS; i++)
        CHECK(is_free_soon(client, key_of((unsigned)i)));
    CHECK(is_free_soon(client, "inside"));
    free(calls);
}

struct own {
    dlock_op *op;
    dlock_client *client;
    int ready, ran;
    dlock_status cancelled;
};

/* Cancels itself and frees the client that it came from. */
static void on_own(void *user, dlock_status status, dlock_lease *lease, dlock_error *error)
{
    struct own *own = (struct own *)user;
    CHECK(status == DLOCK_OK && !error);
    until(&own->ready, 1);
    own->cancelled = dlock_cancel(own->op);
    dlock_client_free(own->client);
    CHECK(dlock_lease_check(lease, NULL) == DLOCK_OK);
    dlock_lease_free(lease);
    dlock_lease_free(lease);
    __sync_fetch_and_add(&own->ran, 1);
}

static void of_itself(void)
{
    struct own own;
    int i;
    memset(&own, 0, sizeof own);
    own.client = client_of("memory://own");
    CHECK(dlock_acquire_async(own.client, "k", NULL, on_own, &own, &own.op, NULL) == DLOCK_OK);
    __sync_fetch_and_add(&own.ready, 1);
    CHECK(until(&own.ran, 1) && own.cancelled == DLOCK_OK); /* its handle ends when it returns */
    for (i = 0; i < 5000 && dlock_cancel(own.op) == DLOCK_OK; i++)
        pause_ms(1);
    CHECK(dlock_cancel(own.op) == DLOCK_INVALID);
    CHECK(dlock_ping(own.client, NULL) == DLOCK_INVALID);
}

static void on_closed(void *user, dlock_status status, dlock_lease *lease, dlock_error *error)
{
    CHECK(status == DLOCK_INVALID && !lease && strstr(dlock_error_message(error), "closed"));
    __sync_fetch_and_add((int *)user, 1);
}

/* A waiter of a client that is closed is told; one whose client is only freed waits on. */
static void ends_of_clients(void)
{
    dlock_client *holder = client_of("memory://ends"), *waiter = client_of("memory://ends");
    dlock_lease *lease = lease_of(holder, "k", NULL);
    struct call call;
    int closed = 0;
    memset(&call, 0, sizeof call);
    call.client = holder;
    all_done = 0;
    CHECK(dlock_acquire_async(waiter, "k", NULL, on_closed, &closed, NULL, NULL) == DLOCK_OK);
    CHECK(dlock_client_close(waiter, 1000, NULL) == DLOCK_OK);
    CHECK(until(&closed, 1));
    dlock_client_free(waiter);
    waiter = client_of("memory://ends");
    CHECK(dlock_acquire_async(waiter, "k", NULL, on_acquired, &call, NULL, NULL) == DLOCK_OK);
    dlock_client_free(waiter);
    pause_ms(20);
    CHECK(__sync_fetch_and_add(&call.ran, 0) == 0);
    CHECK(dlock_release(lease, NULL) == DLOCK_OK);
    CHECK(until(&all_done, 1) && call.status == DLOCK_OK);
    dlock_lease_free(lease);
    dlock_client_free(holder);
}

static void on_block(void *user, dlock_status status, dlock_lease *lease, dlock_error *error)
{
    (void)status, (void)error;
    __sync_fetch_and_add(&running, 1);
    until((int *)user, 1);
    dlock_lease_free(lease);
    __sync_fetch_and_sub(&running, 1);
}

/* Callbacks that block delay no renewal: a lease of 300 ms outlasts them. */
static void that_block(void)
{
    enum { BLOCKED = 8 };
    dlock_client *client = client_of(own_files());
    dlock_options brief = DLOCK_OPTIONS_INIT;
    dlock_lease *lease;
    int i, go = 0;
    char key[16];
    brief.ttl_ms = 300;
    lease = lease_of(client, "k", &brief);
    for (i = 0; i < BLOCKED; i++) {
        snprintf(key, sizeof key, "k%d", i);
        CHECK(dlock_acquire_async(client, key, NULL, on_block, &go, NULL, NULL) == DLOCK_OK);
    }
    CHECK(until(&running, BLOCKED));
    pause_ms(900);
    CHECK(dlock_lease_check(lease, NULL) == DLOCK_OK);
    __sync_fetch_and_add(&go, 1);
    for (i = 0; i < 5000 && __sync_fetch_and_add(&running, 0); i++)
        pause_ms(1);
    CHECK(__sync_fetch_and_add(&running, 0) == 0);
    dlock_lease_free(lease);
    dlock_client_free(client);
}

int main(void)
{
    dlock_client *client = client_of("memory://callbacks"), *files = client_of(own_files());
    each_once(client);
    each_once(files);
    of_itself();
    ends_of_clients();
    that_block();
    dlock_client_free(client);
    dlock_client_free(files);
    CHECK(dlock_shutdown(5000) == DLOCK_OK);
    return report();
}
