/* pthread_cancel: no call is a cancellation point, so a cancelled thread ends between two calls, never inside one. */
#include "check.h"

enum { THREADS = 4, ROUNDS = 60 };

/* What a thread does over and over, and what it leaves behind: the test ends that. */
struct work {
    dlock_client *client;
    dlock_lease *volatile lease;
    dlock_error *volatile error;
    dlock_list *volatile list;
    volatile int inside, ended, type;
    unsigned seed;
};

static void on_any(void *user, dlock_status status, dlock_lease *lease, dlock_error *error)
{
    (void)status, (void)error;
    dlock_lease_free(lease);
    __sync_fetch_and_add((int *)user, -1);
}

static int under_way;

static void cleaned(void *work)
{
    ((struct work *)work)->ended = 1;
}

/* Calls and nothing else: with PTHREAD_CANCEL_ASYNCHRONOUS the thread may end at any instruction of it. */
static void *calls(void *value)
{
    struct work *work = (struct work *)value;
    dlock_options options = DLOCK_OPTIONS_INIT;
    dlock_lease *lease = NULL;
    dlock_error *error = NULL;
    dlock_list *list = NULL;
    int old;
    pthread_cleanup_push(cleaned, work);
    pthread_setcanceltype(work->type, &old);
    for (;;) {
        options.wait_ms = chance(&work->seed, 4);
        work->inside = 1;
        dlock_acquire(work->client, "x", &options, &lease, &error);
        work->lease = lease, work->error = error;
        dlock_lease_wait_lost(lease, chance(&work->seed, 3), &error);
        work->error = error;
        dlock_lease_fence(lease);
        dlock_renew(lease, 0, &error);
        work->error = error;
        dlock_contenders(work->client, "x", &list, &error);
        work->list = list, work->error = error;
        dlock_list_free(list);
        work->list = list = NULL;
        dlock_release(lease, &error);
        work->error = error;
        dlock_lease_free(lease);
        work->lease = lease = NULL;
        pthread_testcancel();
    }
    pthread_cleanup_pop(0);
    return NULL;
}

static void at_any_moment(const char *url, int type)
{
    unsigned seed = 7;
    int i, round, many = rounds(ROUNDS);
    dlock_client *client = client_of(url);
    for (round = 0; round < many; round++) {
        pthread_t threads[THREADS];
        struct work work[THREADS];
        memset(work, 0, sizeof work);
        for (i = 0; i < THREADS; i++) {
            work[i].client = client, work[i].type = type, work[i].seed = (unsigned)(round * THREADS + i + 1);
            threads[i] = started(calls, &work[i]);
        }
        while (!work[0].inside)
            sched_yield();
        usleep(chance(&seed, 3000));
        for (i = 0; i < THREADS; i++)
            CHECK(pthread_cancel(threads[i]) == 0);
        for (i = 0; i < THREADS; i++) {
            void *result = NULL;
            CHECK(pthread_join(threads[i], &result) == 0 && result == PTHREAD_CANCELED && work[i].ended);
            dlock_lease_free(work[i].lease);
            dlock_error_free(work[i].error);
            dlock_list_free(work[i].list);
        }
    }
    /* What the last threads held without having told is what an asynchronous end costs; no call was torn. */
    if (type == PTHREAD_CANCEL_ASYNCHRONOUS)
        CHECK(dlock_client_close(client, -1, NULL) == DLOCK_OK);
    else
        CHECK(is_free_soon(client, "x"));
    dlock_client_free(client);
    client = client_of(url);
    CHECK(is_free_soon(client, "x"));
    dlock_client_free(client);
}

struct waiter {
    dlock_client *client;
    volatile dlock_status status;
    volatile int before, after, state;
};

static void *waits(void *value)
{
    struct waiter *waiter = (struct waiter *)value;
    dlock_options options = DLOCK_OPTIONS_INIT;
    dlock_lease *lease = NULL;
    options.wait_ms = 300;
    waiter->before = 1;
    waiter->status = dlock_acquire(waiter->client, "k", &options, &lease, NULL);
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, (int *)&waiter->state);
    waiter->after = 1;
    pthread_setcancelstate(waiter->state, NULL);
    pthread_testcancel();
    waiter->after = 2;
    return NULL;
}

/* The call goes on to its end, and its outcome is told; then the thread ends. The thread's own state is as it was. */
static void in_a_wait(void)
{
    dlock_client *client = client_of("memory://cancel");
    dlock_lease *held = lease_of(client, "k", NULL);
    struct waiter waiter;
    void *result = NULL;
    pthread_t thread;
    memset(&waiter, 0, sizeof waiter);
    waiter.client = client, waiter.status = DLOCK_OK;
    thread = started(waits, &waiter);
    while (!waiter.before)
        sched_yield();
    pause_ms(20);
    CHECK(pthread_cancel(thread) == 0);
    CHECK(pthread_join(thread, &result) == 0 && result == PTHREAD_CANCELED);
    CHECK(waiter.status == DLOCK_TIMEOUT && waiter.after == 1);
    CHECK(waiter.state == PTHREAD_CANCEL_ENABLE);
    CHECK(dlock_release(held, NULL) == DLOCK_OK);
    CHECK(is_free_soon(client, "k"));
    dlock_lease_free(held);
    dlock_client_free(client);
}

static void *refuses(void *client)
{
    int old;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
    CHECK(dlock_ping((dlock_client *)client, NULL) == DLOCK_OK);
    CHECK(pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &old) == 0 && old == PTHREAD_CANCEL_DISABLE);
    return NULL;
}

/* How to end a wait from elsewhere. */
static void by_an_op(void)
{
    dlock_client *client = client_of("memory://op");
    dlock_lease *held = lease_of(client, "k", NULL);
    dlock_op *op = NULL;
    int i;
    under_way = 1;
    CHECK(dlock_acquire_async(client, "k", NULL, on_any, &under_way, &op, NULL) == DLOCK_OK);
    CHECK(dlock_cancel(op) == DLOCK_OK);
    for (i = 0; i < 10000 && __sync_fetch_and_add(&under_way, 0); i++)
        pause_ms(1);
    CHECK(__sync_fetch_and_add(&under_way, 0) == 0);
    pthread_join(started(refuses, client), NULL);
    dlock_lease_free(held);
    dlock_client_free(client);
}

int main(void)
{
    alarm(120);
    in_a_wait();
    by_an_op();
    at_any_moment("memory://moments", PTHREAD_CANCEL_DEFERRED);
    at_any_moment(own_files(), PTHREAD_CANCEL_DEFERRED);
    at_any_moment("memory://any", PTHREAD_CANCEL_ASYNCHRONOUS);
    at_any_moment(own_files(), PTHREAD_CANCEL_ASYNCHRONOUS);
    return report();
}
