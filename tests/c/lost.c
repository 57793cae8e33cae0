/* How a loss is told, and how a lock ends with its process. */
#include "check.h"

static int told;

static void on_lost(void *user)
{
    dlock_lease *lease = *(dlock_lease **)user;
    CHECK(dlock_lease_check(lease, NULL) == DLOCK_LOST);
    CHECK(dlock_release(lease, NULL) == DLOCK_LOST);
    dlock_lease_free(lease); /* its own */
    __sync_fetch_and_add(&told, 1);
}

static void count(void *user)
{
    __sync_fetch_and_add((int *)user, 1);
}

static int readable(int fd, int ms)
{
    struct pollfd one;
    one.fd = fd, one.events = POLLIN, one.revents = 0;
    return poll(&one, 1, ms) == 1 && (one.revents & POLLIN);
}

static int until(const int *what, int many)
{
    int i;
    for (i = 0; i < 10000 && __sync_fetch_and_add((int *)what, 0) < many; i++)
        pause_ms(1);
    return __sync_fetch_and_add((int *)what, 0) == many;
}

static dlock_options ending(void)
{
    dlock_options options = DLOCK_OPTIONS_INIT;
    options.max_hold_ms = 200;
    return options;
}

static void by_descriptor(dlock_client *client)
{
    dlock_options options = ending();
    dlock_lease *lease = lease_of(client, "fd", &options), *kept = lease_of(client, "kept", NULL), *late;
    int fd = dlock_lease_lost_fd(lease), other = dlock_lease_lost_fd(kept);
    CHECK(fd >= 0 && dlock_lease_lost_fd(lease) == fd && other != fd);
    CHECK(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    CHECK(fcntl(fd, F_GETFL) & O_NONBLOCK);
    CHECK(!readable(fd, 0));
    CHECK(readable(fd, 10000));
    CHECK(readable(fd, 0)); /* and stays so */
    CHECK(dlock_lease_check(lease, NULL) == DLOCK_LOST);
    CHECK(!readable(other, 0));
    CHECK(dlock_release(kept, NULL) == DLOCK_OK && !readable(other, 50));
    /* Asked for after the loss. */
    late = lease_of(client, "late", &options);
    CHECK(dlock_lease_wait_lost(late, 10000, NULL) == DLOCK_LOST);
    CHECK(readable(dlock_lease_lost_fd(late), 0));
    dlock_lease_free(lease);
    dlock_lease_free(kept);
    dlock_lease_free(late);
    errno = 0;
    CHECK(fcntl(fd, F_GETFD) == -1 && errno == EBADF);
}

static void by_callback(dlock_client *client)
{
    dlock_options options = ending();
    dlock_lease *lease = lease_of(client, "callback", &options);
    static dlock_lease *own;
    int counted = 0, never = 0;
    own = lease;
    told = 0;
    CHECK(dlock_lease_on_lost(lease, count, &counted, NULL) == DLOCK_OK);
    CHECK(dlock_lease_on_lost(lease, count, &counted, NULL) == DLOCK_OK);
    CHECK(dlock_lease_on_lost(lease, on_lost, &own, NULL) == DLOCK_OK);
    CHECK(until(&told, 1) && until(&counted, 2));
    CHECK(dlock_release(lease, NULL) == DLOCK_INVALID);

    lease = lease_of(client, "callback", &options);
    CHECK(dlock_lease_wait_lost(lease, -1, NULL) == DLOCK_LOST);
    CHECK(dlock_lease_on_lost(lease, count, &counted, NULL) == DLOCK_OK); /* at once */
    CHECK(until(&counted, 3));
    dlock_lease_free(lease);

    lease = lease_of(client, "callback", &options);
    CHECK(dlock_lease_on_lost(lease, count, &never, NULL) == DLOCK_OK);
    CHECK(dlock_release(lease, NULL) == DLOCK_OK);
    pause_ms(400);
    CHECK(never == 0);
    dlock_lease_free(lease);
}

struct waiter {
    dlock_lease *lease;
    dlock_status status;
    int waits;
};

static void *wait_for_it(void *value)
{
    struct waiter *waiter = (struct waiter *)value;
    __sync_fetch_and_add(&waiter->waits, 1);
    waiter->status = dlock_lease_wait_lost(waiter->lease, -1, NULL);
    return NULL;
}

static void by_waiting(dlock_client *client)
{
    dlock_options options = ending();
    dlock_lease *lease = lease_of(client, "wait", &options);
    dlock_error *err = NULL;
    struct waiter waiter;
    pthread_t thread;
    CHECK(dlock_lease_wait_lost(lease, 0, &err) == DLOCK_TIMEOUT);
    CHECK(dlock_lease_wait_lost(lease, 20, &err) == DLOCK_TIMEOUT);
    CHECK(dlock_error_status(err) == DLOCK_TIMEOUT);
    CHECK(dlock_lease_wait_lost(lease, 10000, &err) == DLOCK_LOST);
    CHECK(dlock_lease_wait_lost(lease, -1, &err) == DLOCK_LOST);
    CHECK(strstr(dlock_error_message(err), "max_hold"));
    dlock_lease_free(lease);
    /* Freed by one thread while another one waits: it is given back, and the wait ends. */
    memset(&waiter, 0, sizeof waiter);
    waiter.lease = lease_of(client, "wait", NULL);
    thread = started(wait_for_it, &waiter);
    until(&waiter.waits, 1);
    pause_ms(50);
    dlock_lease_free(waiter.lease);
    CHECK(is_free_soon(client, "wait"));
    pthread_join(thread, NULL);
    CHECK(waiter.status == DLOCK_NOT_HELD);
    lease = lease_of(client, "wait", NULL);
    CHECK(dlock_release(lease, &err) == DLOCK_OK);
    CHECK(dlock_lease_wait_lost(lease, -1, &err) == DLOCK_NOT_HELD);
    dlock_lease_free(lease);
    dlock_error_free(err);
}

static void by_breaking(dlock_client *client)
{
    dlock_lease *lease = lease_of(client, "break", NULL);
    dlock_options brief = DLOCK_OPTIONS_INIT;
    int32_t broken = 0;
    dlock_lease_free(lease);
    brief.ttl_ms = 300;
    lease = lease_of(client, "break", &brief);
    CHECK(dlock_break_lock(client, "break", &broken, NULL) == DLOCK_OK && broken == 1);
    CHECK(readable(dlock_lease_lost_fd(lease), 10000)); /* at a renewal */
    CHECK(dlock_release(lease, NULL) == DLOCK_LOST);
    dlock_lease_free(lease);
}

/* Another process that holds a file lock: begun again, since a child of fork would not be a program of its own. */
static pid_t holder(const char *program, const char *url, const char *how)
{
    int ready[2];
    char byte = 0;
    pid_t pid;
    if (pipe(ready) != 0)
        abort();
    pid = fork();
    if (pid == 0) {
        dup2(ready[1], 1);
        execl(program, program, url, how, (char *)NULL);
        _exit(127);
    }
    close(ready[1]);
    CHECK(read(ready[0], &byte, 1) == 1 && byte == '!');
    close(ready[0]);
    return pid;
}

static int hold(const char *url, const char *how)
{
    dlock_lease *lease = lease_of(client_of(url), "k", NULL);
    if (!lease || write(1, "!", 1) != 1)
        return 1;
    if (strcmp(how, "wait") == 0)
        pause_ms(60000);
    return 0; /* without dlock_shutdown, with everything held and nothing freed */
}

static void by_its_process(const char *program)
{
    const char *url = own_files();
    dlock_client *client = client_of(url);
    dlock_lease *lease = NULL;
    pid_t pid = holder(program, url, "wait");
    CHECK(dlock_try_acquire(client, "k", NULL, &lease, NULL) == DLOCK_TIMEOUT);
    CHECK(kill(pid, SIGKILL) == 0);
    CHECK(is_free_soon(client, "k"));
    CHECK(ended(pid) == -1);
    pid = holder(program, url, "exit");
    CHECK(ended(pid) == 0);
    CHECK(dlock_try_acquire(client, "k", NULL, &lease, NULL) == DLOCK_OK);
    dlock_lease_free(lease);
    dlock_client_free(client);
}

int main(int count_of, char **words)
{
    dlock_client *clients[2];
    int i;
    if (count_of == 3)
        return hold(words[1], words[2]);
    clients[0] = client_of("memory://lost"), clients[1] = client_of(own_files());
    for (i = 0; i < 2; i++) {
        by_descriptor(clients[i]);
        by_callback(clients[i]);
        by_waiting(clients[i]);
        dlock_client_free(clients[i]);
    }
    clients[0] = client_of("memory://lost");
    by_breaking(clients[0]);
    dlock_client_free(clients[0]);
    by_its_process(words[0]);
    CHECK(dlock_shutdown(5000) == DLOCK_OK);
    return report();
}
