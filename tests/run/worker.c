/* The C worker of dlock-soak: threads that take locks, use and misuse them, and write down what happens.
 *
 * `worker JOB` works until its input ends. JOB and the lines it prints are described in tests/README.md. One file,
 * although it is long: in each language the worker is one file, which one command compiles. */
#define _GNU_SOURCE 1
#include <arpa/inet.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <dlock.h>

#ifndef CLOCK_BOOTTIME
#define CLOCK_BOOTTIME CLOCK_MONOTONIC
#endif
#define MS UINT64_C(1000000)

enum { MOST_KEYS = 256, MOST_THREADS = 255 };

static struct {
    char *url, *name, *store, *keys[MOST_KEYS];
    uint64_t seed, ttl_ms, stale_ms, threads, patience_ms, many_keys;
    int plain;
} job;

struct worker {
    unsigned number;
    dlock_client *client;
    FILE *store;
    int ended[2]; /* a pipe: how an acquire in the background ended */
    uint64_t random;
    pthread_t thread;
};

/* What is written: 0 and null are left out. */
struct line {
    uint64_t t, op, of, by, vu, fence;
    const char *ph, *f, *k, *tok, *err;
    unsigned w, renewed;
};

static void die(const char *what)
{
    fprintf(stderr, "worker %s: %s\n", job.name ? job.name : "?", what);
    exit(1);
}

/* Nanoseconds of the library's clock. */
static uint64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_BOOTTIME, &t);
    return (uint64_t)t.tv_sec * 1000 * MS + (uint64_t)t.tv_nsec;
}

static void pause_ns(uint64_t ns)
{
    struct timespec t = {(time_t)(ns / (1000 * MS)), (long)(ns % (1000 * MS))};
    nanosleep(&t, NULL);
}

/* The job is one flat object without spaces and with nothing escaped, so a name is found by its quotes and colon. */
static const char *field(const char *text, const char *name)
{
    char pattern[64];
    snprintf(pattern, sizeof pattern, "\"%s\":", name);
    const char *at = strstr(text, pattern);
    if (!at)
        die(name);
    return at + strlen(pattern);
}

static uint64_t number(const char *text, const char *name)
{
    return strtoull(field(text, name), NULL, 10);
}

static char *quoted(const char *at)
{
    return *at == '"' ? strndup(at + 1, strcspn(at + 1, "\"")) : NULL;
}

static void read_job(const char *text)
{
    job.name = quoted(field(text, "name"));
    job.url = quoted(field(text, "url"));
    job.store = quoted(field(text, "store"));
    job.seed = number(text, "seed");
    job.ttl_ms = number(text, "ttl_ms");
    job.stale_ms = number(text, "stale_ms");
    job.patience_ms = number(text, "patience_ms");
    job.threads = number(text, "threads");
    job.plain = strncmp(field(text, "plain"), "true", 4) == 0;
    const char *at = field(text, "keys");
    while (*at++ != ']' && job.many_keys < MOST_KEYS && (job.keys[job.many_keys] = quoted(at)))
        at += strlen(job.keys[job.many_keys++]) + 2;
    if (!job.name || !job.url || !job.store || job.many_keys == 0 || job.threads > MOST_THREADS)
        die("the job isn't as described");
}

/* One write: a pipe doesn't mix what is shorter than a page with that of other threads. */
static void put(const struct line *line)
{
    const char *texts[][2] = {{"ph", line->ph}, {"f", line->f}, {"k", line->k}, {"tok", line->tok}, {"err", line->err}};
    const char *names[] = {"op", "of", "by", "vu", "fence"};
    const uint64_t numbers[] = {line->op, line->of, line->by, line->vu, line->fence};
    char text[2048];
    FILE *out = fmemopen(text, sizeof text, "w");
    fprintf(out, "{\"t\":%" PRIu64 ",\"p\":\"%s\",\"w\":%u", line->t ? line->t : now(), job.name, line->w);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        if (texts[i][1])
            fprintf(out, ",\"%s\":\"%s\"", texts[i][0], texts[i][1]);
    }
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        if (numbers[i])
            fprintf(out, ",\"%s\":%" PRIu64, names[i], numbers[i]);
    }
    fprintf(out, "%s}\n", line->renewed ? ",\"auto\":true" : "");
    long length = ftell(out);
    fclose(out);
    if (write(STDOUT_FILENO, text, (size_t)length) != length)
        die("the recorder is gone");
}

/* A lock of a turn; `of` is the number of its acquire, which its lines name. */
struct hold {
    struct worker *worker;
    uint64_t which, of;
    const char *key;
    unsigned renewed;
    dlock_lease *lease;
};

/* A call, from its begin to its end. */
struct call {
    const struct hold *hold;
    const char *f;
    uint64_t op;
};

static struct call begin(const struct hold *hold, const char *f, uint64_t limit_ms, uint64_t vu)
{
    static uint64_t next;
    struct call call = {hold, f, __atomic_add_fetch(&next, 1, __ATOMIC_RELAXED)};
    struct line line = {.t = now(), .op = call.op, .of = hold->of, .ph = "inv", .f = f, .k = hold->key, .vu = vu};
    line.w = hold->worker->number;
    line.by = line.t + limit_ms * MS;
    put(&line);
    return call;
}

static void end(const struct call *call, dlock_status status, struct line line)
{
    static const char *const kinds[] = {NULL,      "timeout", "cancelled",   "lost",    "not-held",
                                        "backend", "invalid", "unsupported", "internal",    "deadlock"};
    line.w = call->hold->worker->number;
    line.op = call->op;
    line.of = call->hold->of;
    line.f = call->f;
    line.k = call->hold->key;
    line.ph = status == DLOCK_OK ? "ok" : status == DLOCK_BACKEND ? "unknown" : "fail";
    if (!line.err && status != DLOCK_OK)
        line.err = (size_t)status < sizeof kinds / sizeof *kinds ? kinds[status] : "internal";
    put(&line);
}

/* Until when it counts; not later than it does. 0: it doesn't, and since when can't be told. */
static uint64_t valid_until(dlock_lease *lease)
{
    uint64_t t = now();
    int64_t left = dlock_lease_valid_for_ms(lease);
    return left <= 0 ? 0 : left == INT64_MAX ? UINT64_MAX : t + (uint64_t)left * MS;
}

/* Connects to the protected resource. */
static FILE *visit(const char *address)
{
    struct sockaddr_in place = {.sin_family = AF_INET};
    char host[64] = "";
    uint16_t port = 0;
    int on = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    sscanf(address, "%63[^:]:%" SCNu16, host, &port);
    place.sin_port = htons(port);
    if (fd < 0 || inet_pton(AF_INET, host, &place.sin_addr) != 1 ||
        connect(fd, (struct sockaddr *)&place, sizeof place) != 0)
        die("the store doesn't listen");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return fdopen(fd, "r");
}

/* What the lock is for. */
static void update(const struct hold *hold, uint64_t think_ns)
{
    char lengths[128], answer[128];
    FILE *store = hold->worker->store;
    int64_t fence = dlock_lease_fence(hold->lease);
    if (fence == 0)
        return;
    dprintf(fileno(store), "read %s %" PRId64 "\n", hold->key, fence);
    if (!fgets(lengths, sizeof lengths, store))
        die("the store is gone");
    pause_ns(think_ns);
    dprintf(fileno(store), "write %s %" PRId64 " %s", hold->key, fence, lengths);
    if (!fgets(answer, sizeof answer, store))
        die("the store is gone");
}

/* By chance, splitmix64. */
static uint64_t below(struct worker *worker, uint64_t limit)
{
    uint64_t z = worker->random += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return (z ^ (z >> 31)) % limit;
}

/* A number tells the lease, as the report may come when the turn is over. */
static void lost(void *user)
{
    uint64_t tag = (uintptr_t)user;
    put(&(struct line){.of = tag >> 16, .ph = "lost", .f = "told", .k = job.keys[tag >> 8 & 255], .w = tag & 255});
}

struct outcome {
    dlock_status status;
    dlock_lease *lease;
};

static void ended(void *user, dlock_status status, dlock_lease *lease, dlock_error *error)
{
    struct outcome outcome = {status, lease};
    (void)error;
    if (write(*(int *)user, &outcome, sizeof outcome) != (ssize_t)sizeof outcome)
        die("a pipe of its own");
}

/* Begins to acquire, and gives up after a while. */
static dlock_status given_up(struct hold *hold, const dlock_options *options)
{
    struct worker *worker = hold->worker;
    dlock_op *op = NULL;
    struct pollfd readable = {worker->ended[0], POLLIN, 0};
    struct outcome outcome;
    dlock_status status = dlock_acquire_async(worker->client, hold->key, options, ended, &worker->ended[1], &op, NULL);
    if (status != DLOCK_OK)
        return status;
    /* It may end in between: what it ended as is told all the same. */
    if (poll(&readable, 1, (int)below(worker, 20)) == 0)
        dlock_cancel(op);
    if (read(worker->ended[0], &outcome, sizeof outcome) != (ssize_t)sizeof outcome)
        die("a pipe of its own");
    hold->lease = outcome.lease;
    return outcome.status;
}

enum way { WAIT, TRY, GIVE_UP };

/* Whether it was obtained. */
static int acquire(struct hold *hold, enum way way, dlock_options *options)
{
    dlock_client *client = hold->worker->client;
    uint64_t limit = way == TRY ? job.patience_ms : (uint64_t)options->wait_ms;
    struct call call = begin(hold, way == TRY ? "try" : "acquire", limit, 0);
    dlock_status status = way == TRY       ? dlock_try_acquire(client, hold->key, options, &hold->lease, NULL)
                          : way == GIVE_UP ? given_up(hold, options)
                                           : dlock_acquire(client, hold->key, options, &hold->lease, NULL);
    struct line line = {.t = now()};
    if (status == DLOCK_OK) {
        line.tok = dlock_lease_token(hold->lease);
        line.fence = (uint64_t)dlock_lease_fence(hold->lease);
        line.vu = valid_until(hold->lease);
        line.vu = line.vu ? line.vu : line.t; /* it was over before it could be looked at */
        line.renewed = hold->renewed = options->auto_renew == 1;
    } else if (way == TRY && status == DLOCK_TIMEOUT) {
        line.err = "busy";
    }
    end(&call, status, line);
    if (status != DLOCK_OK)
        return 0;
    hold->of = call.op;
    void *tag = (void *)(uintptr_t)(hold->of << 16 | hold->which << 8 | hold->worker->number);
    if (dlock_lease_on_lost(hold->lease, lost, tag, NULL) != DLOCK_OK)
        die("a callback was refused");
    return 1;
}

/* Asks whether it counts. Nothing but a renewal moves the end that was stated before. */
static void validate(const struct hold *hold)
{
    struct call call = begin(hold, "validate", 0, 0);
    dlock_status status = dlock_lease_check(hold->lease, NULL);
    end(&call, status, (struct line){.vu = status == DLOCK_OK && hold->renewed ? valid_until(hold->lease) : 0});
}

static void renew(const struct hold *hold)
{
    struct call call = begin(hold, "renew", job.patience_ms, 0);
    dlock_status status = dlock_renew(hold->lease, 0, NULL);
    end(&call, status, (struct line){.vu = status == DLOCK_OK ? valid_until(hold->lease) : 0});
}

/* Releases, or lets go without a word. */
static void leave(const struct hold *hold, int drops)
{
    struct call call = begin(hold, drops ? "drop" : "release", drops ? 0 : job.patience_ms, valid_until(hold->lease));
    dlock_status status = drops ? DLOCK_OK : dlock_release(hold->lease, NULL);
    dlock_lease_free(hold->lease);
    end(&call, status, (struct line){0});
}

static struct hold chosen(struct worker *worker)
{
    struct hold hold = {.worker = worker, .which = below(worker, job.many_keys)};
    hold.key = job.keys[hold.which];
    return hold;
}

/* A lock, taken and given back. */
static void plain_turn(struct worker *worker)
{
    struct hold hold = chosen(worker);
    dlock_options options = DLOCK_OPTIONS_INIT;
    options.ttl_ms = (int64_t)job.ttl_ms;
    options.wait_ms = (int64_t)job.patience_ms;
    if (!acquire(&hold, WAIT, &options))
        return;
    update(&hold, 0);
    leave(&hold, 0);
    pause_ns(below(worker, MS));
}

/* One lock, from its acquire to its end. */
static void turn(struct worker *worker)
{
    struct hold hold = chosen(worker);
    int stale = below(worker, 100) == 0;
    uint64_t how = below(worker, 100);
    dlock_options options = DLOCK_OPTIONS_INIT;
    options.ttl_ms = (int64_t)(stale ? job.stale_ms : job.ttl_ms);
    options.wait_ms = (int64_t)below(worker, job.ttl_ms * 2);
    options.auto_renew = !stale && below(worker, 4) > 0;
    if (!acquire(&hold, how < 15 ? TRY : how < 25 ? GIVE_UP : WAIT, &options)) {
        pause_ns(below(worker, 5 * MS));
        return;
    }
    uint64_t chance = below(worker, 100);
    if (stale) {
        update(&hold, (uint64_t)options.ttl_ms * MS * 4 / 3);
        validate(&hold);
        renew(&hold);
    } else if (chance < 60) {
        update(&hold, below(worker, 5 * MS));
    } else if (chance < 70) {
        validate(&hold);
    } else if (chance < 80) {
        renew(&hold);
        validate(&hold);
    } else if (chance < 88) {
        /* Long enough to be renewed, and to be cut off. */
        pause_ns(below(worker, (below(worker, 16) == 0 ? job.ttl_ms * 2 : 20) * MS));
        validate(&hold);
    }
    leave(&hold, below(worker, 100) < 8);
    pause_ns(below(worker, 3 * MS));
}

/* Works until the input has ended: nothing else ever comes from there. */
static void *work(void *argument)
{
    struct pollfd input = {STDIN_FILENO, POLLIN, 0};
    while (poll(&input, 1, 0) == 0)
        job.plain ? plain_turn(argument) : turn(argument);
    return NULL;
}

int main(int count, char **arguments)
{
    static struct worker workers[MOST_THREADS];
    read_job(count == 2 ? arguments[1] : "");
    signal(SIGPIPE, SIG_IGN);
    for (unsigned i = 0; i < job.threads; i++) {
        struct worker *worker = &workers[i];
        dlock_error *err = NULL;
        *worker = (struct worker){.number = i + 1, .random = job.seed ^ (i + UINT64_C(1)) << 32};
        worker->store = visit(job.store);
        if (dlock_connect(job.url, &worker->client, &err) != DLOCK_OK)
            die(dlock_error_message(err));
        if (pipe(worker->ended) != 0 || pthread_create(&worker->thread, NULL, work, worker) != 0)
            die("no pipe, or no thread");
    }
    for (unsigned i = 0; i < job.threads; i++)
        pthread_join(workers[i].thread, NULL);
    return dlock_shutdown(5000) == DLOCK_OK ? 0 : 1;
}
