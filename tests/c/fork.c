/* Forks: while something is held, and while other threads are anywhere inside the library.
 *
 * `fork still`: without those threads, for a checker whose own allocator a fork may leave locked. */
#include "check.h"

enum { THREADS = 4, FORKS = 150 };

static dlock_client *memory, *files;
static dlock_lease *held;
static dlock_op *waiting;
static int stop, waiting_ran;

static void on_waiting(void *user, dlock_status status, dlock_lease *lease, dlock_error *error)
{
    (void)user, (void)status, (void)error;
    dlock_lease_free(lease);
    __sync_fetch_and_add(&waiting_ran, 1);
}

static void on_any(void *user, dlock_status status, dlock_lease *lease, dlock_error *error)
{
    (void)user, (void)status, (void)error;
    dlock_lease_free(lease);
}

static void on_lost(void *user)
{
    (void)user;
}

static void *hammer(void *value)
{
    unsigned seed = (unsigned)(uintptr_t)value;
    int i;
    while (!__sync_fetch_and_add(&stop, 0)) {
        dlock_client *client = chance(&seed, 2) ? memory : files, *more = NULL;
        dlock_options options = DLOCK_OPTIONS_INIT;
        dlock_lease *lease = NULL;
        dlock_error *err = NULL;
        dlock_list *list = NULL;
        dlock_op *op = NULL;
        options.wait_ms = chance(&seed, 3);
        if (dlock_acquire(client, chance(&seed, 2) ? "x" : "y", &options, &lease, &err) == DLOCK_OK) {
            dlock_lease_lost_fd(lease);
            dlock_lease_on_lost(lease, on_lost, NULL, NULL);
            for (i = 0; i < 20; i++)
                dlock_lease_on_lost(held, on_lost, NULL, NULL); /* which a child then asks for too */
            dlock_lease_token(lease);
        }
        dlock_contenders(client, "x", &list, NULL);
        dlock_acquire_async(client, "x", &options, on_any, NULL, &op, NULL);
        dlock_connect("memory://more", &more, NULL);
        if (chance(&seed, 2))
            dlock_cancel(op);
        dlock_lease_free(lease);
        dlock_error_free(err);
        dlock_list_free(list);
        dlock_client_free(more);
    }
    return NULL;
}

/* What a child does at once. */
static int child(void)
{
    dlock_options options = DLOCK_OPTIONS_INIT;
    dlock_client *clients[2], *own = NULL;
    dlock_lease *lease = NULL, *all[50];
    dlock_error *err = NULL;
    int i, j;
    alarm(20); /* whoever hangs dies of it */
    checks_failed = 0;
    clients[0] = memory, clients[1] = files;
    CHECK(dlock_lease_check(held, &err) == DLOCK_NOT_HELD);
    CHECK(strstr(dlock_error_message(err), "fork"));
    CHECK(dlock_lease_valid_for_ms(held) == 0);
    CHECK(dlock_renew(held, 0, &err) == DLOCK_NOT_HELD);
    CHECK(dlock_release(held, &err) == DLOCK_NOT_HELD);
    CHECK(dlock_lease_wait_lost(held, -1, &err) == DLOCK_NOT_HELD);
    CHECK(dlock_lease_on_lost(held, on_lost, NULL, &err) == DLOCK_OK);
    CHECK(*dlock_lease_token(held) && dlock_lease_lost_fd(held) >= 0);
    CHECK(dlock_cancel(waiting) == DLOCK_INVALID);
    options.wait_ms = 10000;
    for (i = 0; i < 2; i++) {
        for (j = 0; j < 50; j++) {
            char key[16];
            snprintf(key, sizeof key, "%d-%d", (int)getpid(), j);
            all[j] = lease_of(clients[i], key, &options);
        }
        for (j = 0; j < 50; j++) {
            CHECK(dlock_release(all[j], &err) == DLOCK_OK);
            dlock_lease_free(all[j]);
        }
    }
    CHECK(dlock_try_acquire(files, "held", NULL, &lease, &err) == DLOCK_TIMEOUT); /* its parent's */
    CHECK(dlock_connect("memory://child", &own, &err) == DLOCK_OK);
    dlock_client_free(own);
    dlock_lease_free(held);
    dlock_client_free(memory);
    dlock_client_free(files);
    dlock_error_free(err);
    CHECK(dlock_shutdown(5000) == DLOCK_OK);
    return checks_failed != 0;
}

int main(int count, char **words)
{
    pthread_t threads[THREADS];
    int i, good = 0, many = rounds(FORKS), others = count > 1 && strcmp(words[1], "still") == 0 ? 0 : THREADS;
    memory = client_of("memory://fork");
    files = client_of(own_files());
    held = lease_of(files, "held", NULL);
    CHECK(dlock_lease_on_lost(held, on_lost, NULL, NULL) == DLOCK_OK);
    CHECK(dlock_acquire_async(files, "held", NULL, on_waiting, NULL, &waiting, NULL) == DLOCK_OK);
    for (i = 0; i < others; i++)
        threads[i] = started(hammer, (void *)(uintptr_t)(i + 1));
    /* The acquire in the background begins in another thread. A sanitizer's allocator that the thread uses at the moment
       of a fork stays locked in the child. */
    if (!others)
        pause_ms(300);
    for (i = 0; i < many; i++) {
        pid_t pid = fork();
        if (pid == 0)
            _exit(child());
        good += ended(pid) == 0;
    }
    __sync_fetch_and_add(&stop, 1);
    for (i = 0; i < others; i++)
        pthread_join(threads[i], NULL);
    printf("%d of %d children did all they should\n", good, many);
    CHECK(good == many);

    /* None of them ended what is the parent's. */
    CHECK(dlock_lease_check(held, NULL) == DLOCK_OK);
    CHECK(__sync_fetch_and_add(&waiting_ran, 0) == 0);
    CHECK(dlock_release(held, NULL) == DLOCK_OK);
    for (i = 0; i < 10000 && !__sync_fetch_and_add(&waiting_ran, 0); i++)
        pause_ms(1);
    CHECK(__sync_fetch_and_add(&waiting_ran, 0) == 1);
    dlock_lease_free(held);
    dlock_client_free(memory);
    dlock_client_free(files);
    CHECK(dlock_shutdown(5000) == DLOCK_OK);
    return report();
}
