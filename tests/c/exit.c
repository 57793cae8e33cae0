/* Calls when the process or a thread is ending: in atexit handlers, in destructors of static and of thread's objects, from
 * any thread. Every call still works. Each scenario is a child that has not used the library before.
 *
 * `exit URL...`: on these backends, too. */
#include "check.h"

static const char *url;
static dlock_client *client;
static dlock_lease *held;
static int ran, many;
/* In a handler of the exit: the library's own, which gives everything back, may have run by then. */
static int leaving;

static void on_acquired(void *user, dlock_status status, dlock_lease *lease, dlock_error *error)
{
    (void)error;
    CHECK(status == DLOCK_OK);
    dlock_lease_free(lease);
    __sync_fetch_and_add((int *)user, 1);
}

static void on_lost(void *user)
{
    __sync_fetch_and_add((int *)user, 1);
}

static int until_ran(int wanted)
{
    int i;
    for (i = 0; i < 10000 && __sync_fetch_and_add(&ran, 0) < wanted; i++)
        pause_ms(1);
    return __sync_fetch_and_add(&ran, 0) == wanted;
}

/* One of everything. */
static void everything(void)
{
    dlock_options options = DLOCK_OPTIONS_INIT, short_lived = DLOCK_OPTIONS_INIT;
    dlock_client *more = NULL;
    dlock_lease *lease = NULL, *ending = NULL;
    dlock_error *err = NULL;
    dlock_list *list = NULL;
    dlock_op *op = NULL;
    int32_t broken = 0;
    many++;
    if (!client)
        client = client_of(url);
    if (leaving && held && dlock_lease_check(held, NULL) != DLOCK_OK) {
        dlock_lease_free(held);
        held = NULL;
    }
    if (!held)
        held = lease_of(client, "held", NULL);
    options.wait_ms = 50;
    CHECK(dlock_acquire(client, "held", &options, &lease, &err) == DLOCK_TIMEOUT);
    if (err && dlock_error_status(err) != DLOCK_TIMEOUT)
        fprintf(stderr, "%s\n", dlock_error_message(err));
    CHECK(dlock_lease_check(held, &err) == DLOCK_OK && dlock_lease_fence(held) > 0);
    CHECK(dlock_renew(held, 0, &err) == DLOCK_OK);
    CHECK(dlock_lease_wait_lost(held, 20, &err) == DLOCK_TIMEOUT);
    CHECK(dlock_lease_lost_fd(held) >= 0);
    CHECK(dlock_ping(client, &err) == DLOCK_OK);
    CHECK(dlock_contenders(client, "held", &list, &err) == DLOCK_OK && dlock_list_count(list) == 1);
    CHECK(dlock_query(client, &list, &err) == DLOCK_OK);
    ran = 0;
    if (!leaving)
        CHECK(dlock_acquire_async(client, "held", NULL, on_acquired, &ran, &op, &err) == DLOCK_OK);
    CHECK(dlock_release(held, &err) == DLOCK_OK);
    CHECK(leaving || until_ran(1));
    dlock_lease_free(held);
    held = lease_of(client, "other", NULL);
    short_lived.ttl_ms = 100, short_lived.auto_renew = 0;
    ending = lease_of(client, "ending", &short_lived);
    CHECK(dlock_lease_on_lost(ending, on_lost, &ran, &err) == DLOCK_OK);
    CHECK(dlock_lease_wait_lost(ending, 10000, &err) == DLOCK_LOST);
    CHECK(leaving || until_ran(2));
    CHECK(dlock_break_lock(client, "other", &broken, &err) == DLOCK_OK && broken == 1);
    CHECK(dlock_lease_wait_lost(held, 10000, &err) == DLOCK_LOST);
    CHECK(dlock_connect(url, &more, &err) == DLOCK_OK);
    CHECK(dlock_try_acquire(more, "held", NULL, &lease, &err) == DLOCK_OK);
    dlock_list_free(list);
    dlock_lease_free(lease);
    dlock_lease_free(ending);
    dlock_lease_free(held);
    dlock_error_free(err);
    dlock_client_free(more);
    CHECK(is_free_soon(client, "held"));
    held = NULL;
}

static void last(void)
{
    everything();
    CHECK(dlock_client_close(client, 5000, NULL) == DLOCK_OK);
    CHECK(dlock_shutdown(5000) == DLOCK_OK);
    dlock_client_free(client);
    fflush(stderr);
    _exit(checks_failed != 0 || many < 1 ? 1 : 0);
}

/* ---- at the end of the process */

static void everything_then(void)
{
    leaving = 1;
    everything();
}

static void last_then(void)
{
    leaving = 1;
    last();
}

static void first_used(void)
{
    atexit(last_then);
}

static void used_before(void)
{
    atexit(last_then);
    everything();
    held = lease_of(client, "held", NULL);
}

static void twice(void)
{
    atexit(last_then);
    atexit(everything_then);
    used_before();
}

static void *exits(void *nothing)
{
    (void)nothing;
    everything();
    exit(0);
}

static void from_another_thread(void)
{
    atexit(last_then);
    pthread_join(started(exits, NULL), NULL);
}

static void *waits(void *nothing)
{
    dlock_lease *lease = NULL;
    dlock_acquire(client, "kept", NULL, &lease, NULL); /* until the process ends */
    return nothing;
}

static void while_others_wait(void)
{
    int i;
    used_before();
    CHECK(lease_of(client, "kept", NULL) != NULL);
    for (i = 0; i < 3; i++)
        started(waits, NULL);
    pause_ms(50);
}

#ifdef __cplusplus
static int by_destructor;
static struct last_of_all {
    ~last_of_all()
    {
        if (by_destructor)
            last_then();
    }
} an_object;

static void static_object(void)
{
    by_destructor = 1;
    everything();
}
#endif

/* ---- at the end of a thread: twice, so that the library's own destructors of the thread have run in between */

static pthread_key_t key;

static void of_the_thread(void *times)
{
    everything();
    if (times == &key)
        pthread_setspecific(key, &many);
}

#ifdef __cplusplus
struct of_a_thread {
    int *used;
    ~of_a_thread()
    {
        everything();
    }
};
static thread_local of_a_thread own;
#endif

static void *ends(void *nothing)
{
#ifdef __cplusplus
    own.used = &many;
#endif
    pthread_setspecific(key, &key);
    everything();
    return nothing;
}

static void thread_ends(void)
{
    pthread_key_create(&key, of_the_thread);
    pthread_join(started(ends, NULL), NULL);
    CHECK(many >= 3);
    last();
}

static void child(const char *name, void (*scenario)(void))
{
    pid_t pid;
    fflush(NULL);
    pid = fork();
    if (pid == 0) {
        alarm(60); /* whoever hangs dies of it */
        scenario();
        exit(3); /* the last handler says how it went */
    }
    if (!CHECK(ended(pid) == 0))
        fprintf(stderr, "on %s: %s\n", url, name);
}

int main(int count, char **words)
{
    const char *files = own_files();
    int i;
    for (i = 1; i < count + 2; i++) {
        url = i < count ? words[i] : i == count ? "memory://exit" : files;
        child("the first use in an atexit handler", first_used);
        child("used before", used_before);
        child("in two handlers", twice);
        child("exit in another thread", from_another_thread);
        child("while others wait", while_others_wait);
#ifdef __cplusplus
        child("in a static object's destructor", static_object);
#endif
        child("the end of a thread", thread_ends);
    }
    return report();
}
