/* A program that takes its signals by sigwait or signalfd gets them, also those that it blocks only when the library's
 * threads run: none of these takes a signal of the program's. */
#include "check.h"

#include <sys/signalfd.h>

static int called;

static void on_line(void *user, int level, const char *message)
{
    (void)user, (void)level, (void)message;
}

static void on_acquired(void *user, dlock_status status, dlock_lease *lease, dlock_error *error)
{
    (void)user, (void)error;
    CHECK(status == DLOCK_OK);
    dlock_lease_free(lease);
    __sync_fetch_and_add(&called, 1);
}

/* Threads of every kind: those of the engine, of the log, of callbacks and of name resolution. */
static void start_threads(void)
{
    dlock_client *memory = client_of("memory://signals"), *server = client_of("redis://localhost:1");
    dlock_options options = DLOCK_OPTIONS_INIT;
    dlock_lease *lease;
    int i;
    CHECK(dlock_set_log(on_line, NULL) == DLOCK_OK);
    options.ttl_ms = 100;
    options.auto_renew = 0;
    lease = lease_of(memory, "ends", &options);
    CHECK(dlock_lease_wait_lost(lease, -1, NULL) == DLOCK_LOST);
    CHECK(dlock_acquire_async(memory, "k", NULL, on_acquired, NULL, NULL, NULL) == DLOCK_OK);
    for (i = 0; i < 10000 && !__sync_fetch_and_add(&called, 0); i++)
        pause_ms(1);
    CHECK(__sync_fetch_and_add(&called, 0) == 1);
    CHECK(dlock_ping(server, NULL) == DLOCK_BACKEND);
    dlock_lease_free(lease);
    dlock_client_free(memory);
    dlock_client_free(server);
}

static void waited_for(const sigset_t *set, int number)
{
    struct timespec limit = {10, 0};
    CHECK(kill(getpid(), number) == 0);
    CHECK(sigtimedwait(set, NULL, &limit) == number);
}

static void read_from(const sigset_t *set, int number)
{
    struct signalfd_siginfo told;
    struct pollfd ready;
    ready.fd = signalfd(-1, set, SFD_CLOEXEC);
    ready.events = POLLIN;
    CHECK(ready.fd >= 0 && kill(getpid(), number) == 0);
    CHECK(poll(&ready, 1, 10000) == 1);
    CHECK(read(ready.fd, &told, sizeof told) == (ssize_t)sizeof told && told.ssi_signo == (uint32_t)number);
    close(ready.fd);
}

int main(void)
{
    static const int numbers[] = {SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGALRM, SIGCHLD, SIGPROF};
    sigset_t set, usual, now;
    size_t i;
    CHECK(pthread_sigmask(SIG_SETMASK, NULL, &usual) == 0);
    start_threads();
    CHECK(pthread_sigmask(SIG_SETMASK, NULL, &now) == 0);
    for (i = 1; i < 65; i++)
        CHECK(sigismember(&usual, (int)i) == sigismember(&now, (int)i));
    sigemptyset(&set);
    for (i = 0; i < sizeof numbers / sizeof *numbers; i++)
        sigaddset(&set, numbers[i]);
    CHECK(pthread_sigmask(SIG_BLOCK, &set, NULL) == 0);
    for (i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        waited_for(&set, numbers[i]);
        read_from(&set, numbers[i]);
    }
    return report();
}
