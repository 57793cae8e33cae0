/* The C interpreter of the behaviour cases: reads steps, does them through dlock.h, prints their outcomes.
 * tests/README.md has the language. One file, although it is long: in each language the interpreter is one file, which
 * one command compiles, and a step is one function in it. */
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <dlock.h>

/* Not: a negative count, a time that is no number, a 0 that isn't the default, a text with a NUL. */
static const char ABLE[] = "able cancel fork bytes";

enum { MOST = 64, PATIENCE_MS = 5000 };

#define IS(word) (strcmp(verb, word) == 0)

/* What has a name: a client, a lease, an acquire under way. */
struct named {
    char *name;
    void *value;
};

struct held {
    dlock_lease *lease;
    int called; /* how often its callback was called */
};

/* An acquire under way; of its callback and of the step that joins it, the last one frees it. */
struct call {
    dlock_status status;
    dlock_lease *lease;
    dlock_op *op;
    int begun, done, forgotten;
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct named clients[MOST], leases[MOST], calls[MOST];
static char *url;
static dlock_error *err; /* of the step; its text goes to the standard error */
static char answer[65536];

static void die(const char *what)
{
    fprintf(stderr, "run: %s\n", what);
    exit(2);
}

static void pause_ms(int64_t ms)
{
    struct timespec t = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&t, NULL);
}

/* `300ms`, `1.5s`. */
static int64_t ms_of(const char *text)
{
    char *unit;
    double number = strtod(text, &unit);
    return (int64_t)(number * (strcmp(unit, "ms") == 0 ? 1 : 1000));
}

static const char *show(const char *format, ...)
{
    va_list values;
    va_start(values, format);
    vsnprintf(answer, sizeof answer, format, values);
    va_end(values);
    return answer;
}

static const char *yes(int is)
{
    return is ? "yes" : "no";
}

/* The outcome of a call: `good` if it went well, else the kind of the error. */
static const char *as(const char *good, dlock_status status)
{
    static const char *const kinds[] = {NULL, "timeout", "cancelled", "lost", "not-held", "backend",
                                        "invalid", "unsupported", "internal", "deadlock"};
    return status == DLOCK_OK ? good : kinds[status];
}

/* ---- names */

static void **find(struct named *all, const char *name, int add)
{
    int i, place = -1;
    for (i = 0; i < MOST; i++) {
        if (all[i].name && strcmp(all[i].name, name) == 0)
            return &all[i].value;
        if (!all[i].name && place < 0)
            place = i;
    }
    if (!add)
        return NULL;
    if (place < 0)
        die("more names than there is room for");
    all[place].name = strdup(name);
    all[place].value = NULL;
    return &all[place].value;
}

static void forget(struct named *all, const char *name, void (*end)(void *))
{
    int i;
    for (i = 0; i < MOST; i++) {
        if (all[i].name && (!name || strcmp(all[i].name, name) == 0)) {
            end(all[i].value);
            free(all[i].name);
            all[i].name = NULL;
        }
    }
}

static void end_client(void *client)
{
    dlock_client_close(client, PATIENCE_MS, NULL);
    dlock_client_free(client);
}

static void end_lease(void *value)
{
    struct held *held = value;
    dlock_lease_free(held->lease); /* its callback may come at this very moment, so what it counts in stays */
}

static void end_call(void *value)
{
    struct call *call = value;
    int done;
    pthread_mutex_lock(&mutex);
    call->forgotten = 1;
    done = call->done;
    pthread_mutex_unlock(&mutex);
    if (done) {
        dlock_lease_free(call->lease);
        free(call);
    }
}

static const char *got(dlock_lease *lease, const char *name)
{
    struct held *held;
    if (!*name) {
        dlock_lease_free(lease);
        return "lease";
    }
    forget(leases, name, end_lease);
    held = calloc(1, sizeof *held);
    held->lease = lease;
    *find(leases, name, 1) = held;
    return name;
}

/* ---- several at once */

struct crowd {
    dlock_client *client;
    const char *key;
    pthread_barrier_t start;
    int leases, inside, most, failed;
};

/* Tries once, and gives nothing back before all have tried. */
static void *try_once(void *value)
{
    struct crowd *crowd = value;
    dlock_lease *lease = NULL;
    pthread_barrier_wait(&crowd->start);
    if (dlock_try_acquire(crowd->client, crowd->key, NULL, &lease, NULL) == DLOCK_OK)
        __sync_fetch_and_add(&crowd->leases, 1);
    pthread_barrier_wait(&crowd->start);
    dlock_lease_free(lease);
    return NULL;
}

static void *pass_through(void *value)
{
    struct crowd *crowd = value;
    dlock_lease *lease = NULL;
    int inside, good = dlock_acquire(crowd->client, crowd->key, NULL, &lease, NULL) == DLOCK_OK;
    inside = __sync_add_and_fetch(&crowd->inside, 1);
    pause_ms(1);
    pthread_mutex_lock(&mutex);
    crowd->most = inside > crowd->most ? inside : crowd->most;
    pthread_mutex_unlock(&mutex);
    __sync_fetch_and_sub(&crowd->inside, 1);
    if (!good || dlock_release(lease, NULL) != DLOCK_OK)
        __sync_fetch_and_add(&crowd->failed, 1);
    dlock_lease_free(lease);
    return NULL;
}

static const char *at_once(dlock_client *client, const char *key, int many, void *(*each)(void *))
{
    struct crowd crowd = {.client = client, .key = key};
    pthread_t *threads = calloc((size_t)many, sizeof *threads);
    int i;
    pthread_barrier_init(&crowd.start, NULL, (unsigned)many);
    for (i = 0; i < many; i++) {
        if (pthread_create(&threads[i], NULL, each, &crowd) != 0)
            die("a thread");
    }
    for (i = 0; i < many; i++)
        pthread_join(threads[i], NULL);
    pthread_barrier_destroy(&crowd.start);
    free(threads);
    return crowd.failed ? "some failed" : show("%d", each == try_once ? crowd.leases : crowd.most);
}

/* ---- steps of a client */

static dlock_options options_of(char **words)
{
    dlock_options options = DLOCK_OPTIONS_INIT;
    for (; *words; words++) {
        char *verb = *words, *value = strchr(verb, '='), *comma;
        if (!value)
            die("an option is NAME=VALUE");
        *value++ = 0;
        comma = strchr(value, ',');
        if (IS("ttl")) options.ttl_ms = ms_of(value);
        else if (IS("wait")) options.wait_ms = ms_of(value);
        else if (IS("max_hold")) options.max_hold_ms = ms_of(value);
        else if (IS("auto_renew")) options.auto_renew = strcmp(value, "true") == 0;
        else if (IS("fair")) options.fair = strcmp(value, "true") == 0;
        else if (IS("handoff")) options.handoff = (uint32_t)strtoul(value, NULL, 10);
        else if (IS("token")) options.token = value;
        else if (IS("label")) options.label = value;
        else if (IS("retry") && comma) {
            options.retry_tries = (uint32_t)strtoul(value, NULL, 10);
            options.retry_delay_ms = ms_of(comma + 1);
        } else
            die(verb);
    }
    return options;
}

static void ended(void *user, dlock_status status, dlock_lease *lease, dlock_error *error)
{
    struct call *call = user;
    int forgotten;
    (void)error;
    pthread_mutex_lock(&mutex);
    call->status = status;
    call->lease = lease;
    call->done = 1;
    forgotten = call->forgotten;
    pthread_mutex_unlock(&mutex);
    if (forgotten) {
        dlock_lease_free(lease);
        free(call);
    }
}

static const char *begin(dlock_client *client, const char *key, dlock_options options, const char *name)
{
    struct call *call = calloc(1, sizeof *call);
    *find(calls, name, 1) = call;
    call->status = dlock_acquire_async(client, key, &options, ended, call, &call->op, &err);
    if (call->status != DLOCK_OK)
        call->done = 1; /* told at once: no callback */
    return name;
}

static const char *contenders(dlock_client *client, const char *key, const char *verb)
{
    dlock_list *list = NULL;
    dlock_status status = dlock_contenders(client, key, &list, &err);
    size_t i, many = dlock_list_count(list), length = 0;
    show(verb ? "" : "%zu", many);
    for (i = 0; verb && i < many; i++) {
        const dlock_contender *contender = dlock_list_at(list, i);
        char number[32] = "";
        const char *text = number;
        int64_t value = IS("pid") ? contender->pid : IS("fence") && contender->fence ? contender->fence : -1;
        if (value != -1) snprintf(number, sizeof number, "%" PRId64, value);
        if (IS("held")) text = yes(contender->held);
        if (IS("token")) text = contender->token;
        if (IS("label")) text = contender->label;
        if (IS("aged") && contender->age_ms != -1) text = yes(contender->age_ms < PATIENCE_MS);
        length += (size_t)snprintf(answer + length, sizeof answer - length, "%s%s", i ? " " : "",
                                   text && *text ? text : "-");
    }
    dlock_list_free(list);
    return as(answer, status);
}

static const char *capability(dlock_client *client, const char *verb)
{
    dlock_capability_set can = DLOCK_CAPABILITY_SET_INIT;
    dlock_status status = dlock_capabilities(client, &can, &err);
    int32_t value = IS("fence") ? can.fence : IS("ttl") ? can.ttl : IS("fifo") ? can.fifo : IS("shared") ? can.shared
                  : IS("permits") ? can.permits : IS("fork") ? can.fork : -1;
    return status == DLOCK_OK && value == -1 ? "no such capability" : as(yes(value), status);
}

static const char *client_step(const char *who, const char *verb, char **words, const char *name)
{
    dlock_client *fresh = NULL, *client;
    dlock_lease *lease = NULL;
    dlock_status status = DLOCK_OK;
    const char *key = words[0];
    dlock_options options;
    int32_t broken = 0;
    void **place = find(clients, who, 0);
    int maker = 1;
    if (IS("connect")) status = dlock_connect(key, &fresh, &err);
    else if (IS("default")) status = dlock_connect(NULL, &fresh, &err);
    else if (IS("service")) status = dlock_connect_service(key, &fresh, &err);
    else if (IS("config")) status = dlock_connect_config(key, &fresh, &err);
    else if (!(maker = 0) && !place) status = dlock_connect(url, &fresh, &err);
    if (fresh) {
        place = place ? place : find(clients, who, 1);
        dlock_client_free(*place);
        *place = fresh;
    }
    if (maker || status != DLOCK_OK) return as("ok", status);
    client = *place;
    if (IS("acquire") || IS("try")) {
        options = options_of(words + 1);
        status = (*verb == 't' ? dlock_try_acquire : dlock_acquire)(client, key, &options, &lease, &err);
        if (*verb == 't' && status == DLOCK_TIMEOUT) return "busy";
        return status == DLOCK_OK ? got(lease, name) : as("", status);
    }
    if (IS("begin")) return begin(client, key, options_of(words + 1), name);
    if (IS("with")) {
        options = options_of(words + 2);
        status = dlock_acquire(client, key, &options, &lease, &err);
        if (status == DLOCK_OK) {
            pause_ms(ms_of(words[1]));
            status = dlock_release(lease, &err);
            dlock_lease_free(lease);
        }
        return as("released", status);
    }
    if (IS("rush")) return at_once(client, key, atoi(words[1]), try_once);
    if (IS("crowd")) return at_once(client, key, atoi(words[1]), pass_through);
    if (IS("contenders")) return contenders(client, key, words[1]);
    if (IS("break")) {
        status = dlock_break_lock(client, key, &broken, &err);
        return as(yes(broken), status);
    }
    if (IS("ping")) return as("ok", dlock_ping(client, &err));
    if (IS("close")) return as("ok", dlock_client_close(client, PATIENCE_MS, &err));
    if (IS("backend")) return dlock_backend(client);
    if (IS("register")) return as("ok", dlock_register(key, client, &err));
    if (IS("capability")) return capability(client, key);
    return "no step of a client";
}

/* ---- steps of a lease and of an acquire under way */

static void count(void *called)
{
    __sync_fetch_and_add((int *)called, 1);
}

static const char *lease_step(const char *name, const char *verb, char **words)
{
    void **place = find(leases, name, 0);
    struct held *held = place ? *place : NULL;
    dlock_lease *lease = held ? held->lease : NULL;
    int64_t number;
    if (!held)
        return "no such lease";
    if (IS("drop")) {
        forget(leases, name, end_lease);
        return "ok";
    }
    if (IS("release")) return as("released", dlock_release(lease, &err));
    if (IS("held")) return yes(dlock_lease_check(lease, NULL) == DLOCK_OK);
    if (IS("check")) return as("ok", dlock_lease_check(lease, &err));
    if (IS("renew")) return as("ok", dlock_renew(lease, words[0] ? ms_of(words[0]) : 0, &err));
    if (IS("fence")) return (number = dlock_lease_fence(lease)) ? show("%" PRId64, number) : "none";
    if (IS("token")) return dlock_lease_token(lease);
    if (IS("key")) return dlock_lease_key(lease);
    if (IS("ttl")) return show("%" PRId64 "ms", dlock_lease_ttl_ms(lease));
    if (IS("valid")) {
        number = dlock_lease_valid_for_ms(lease);
        return number == INT64_MAX ? "forever" : number <= dlock_lease_ttl_ms(lease) ? yes(number > 0) : "too long";
    }
    if (IS("lost-within")) {
        struct pollfd readable = {dlock_lease_lost_fd(lease), POLLIN, 0};
        return readable.fd < 0 ? "no descriptor" : yes(poll(&readable, 1, (int)ms_of(words[0])) == 1);
    }
    if (IS("callback")) return as("ok", dlock_lease_on_lost(lease, count, &held->called, &err));
    if (IS("called")) {
        for (number = ms_of(words[0]); number > 0 && !__sync_fetch_and_add(&held->called, 0); number -= 2)
            pause_ms(2);
        return show("%d", __sync_fetch_and_add(&held->called, 0));
    }
    return "no step of a lease";
}

/* Whether it has ended, after so long at the most; -1: however long it takes. */
static int call_done(struct call *call, int64_t ms)
{
    int done;
    for (;; ms -= 2) {
        pthread_mutex_lock(&mutex);
        done = call->done;
        pthread_mutex_unlock(&mutex);
        if (done || ms == 0)
            return done;
        pause_ms(2);
    }
}

static const char *call_step(const char *name, const char *verb, const char *lease)
{
    void **place = find(calls, name, 0);
    struct call *call = place ? *place : NULL;
    const char *outcome;
    if (!call)
        return "no such acquire";
    if (IS("cancel")) {
        dlock_cancel(call->op); /* of one that has just ended it may say so */
        return "ok";
    }
    if (IS("done")) return yes(call_done(call, 100));
    if (strcmp(verb, "join") != 0)
        return "no step of an acquire";
    call_done(call, -1);
    outcome = call->status == DLOCK_OK ? got(call->lease, lease) : as("", call->status);
    call->lease = NULL;
    forget(calls, name, end_call);
    return outcome;
}

/* ---- the loop */

/* `''` is nothing, `\xHH` a byte. */
static char *unescape(char *word)
{
    char *from = word, *to = word, hex[3] = "";
    if (strcmp(word, "''") == 0)
        *word = 0;
    for (; *from; to++) {
        if (from[0] == '\\' && from[1] == 'x' && from[2] && from[3]) {
            memcpy(hex, from + 2, 2);
            *to = (char)strtoul(hex, NULL, 16);
            from += 4;
        } else {
            *to = *from++;
        }
    }
    *to = 0;
    return word;
}

static const char *step(char *line)
{
    char *words[MOST] = {NULL}, *rest = NULL, *name = strstr(line, " -> ");
    int many = 0;
    if (name) {
        *name = 0;
        name += 4;
    }
    for (char *word = strtok_r(line, " ", &rest); word && many < MOST - 1; word = strtok_r(NULL, " ", &rest))
        words[many++] = unescape(word);
    if (many < 2)
        return "no step";
    if (strcmp(words[0], "case") == 0) {
        forget(calls, NULL, end_call);
        forget(leases, NULL, end_lease);
        forget(clients, NULL, end_client);
        free(url);
        url = strdup(words[1]);
        return "ok";
    }
    name = name ? name : "";
    if (words[0][0] == '$')
        return lease_step(words[0], words[1], words + 2);
    if (words[0][0] == '%')
        return call_step(words[0], words[1], name);
    return client_step(words[0], words[1], words + 2, name);
}

static FILE *connected(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int peer = socket(AF_UNIX, SOCK_STREAM, 0);
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    if (peer < 0 || connect(peer, (struct sockaddr *)&address, sizeof address) != 0)
        die("the harness doesn't listen");
    return fdopen(peer, "r+");
}

int main(void)
{
    FILE *in = stdin, *out = stdout;
    const char *outcome = ABLE;
    char *line = NULL, path[sizeof((struct sockaddr_un *)NULL)->sun_path];
    size_t size = 0;
    for (;;) {
        if (fprintf(out, "%s\n", outcome) < 0 || fflush(out) != 0)
            return 1;
        if (getline(&line, &size, in) <= 0 || strcmp(line, "exit\n") == 0)
            break;
        line[strcspn(line, "\n")] = 0;
        if (sscanf(line, "%*s fork %107s", path) == 1) {
            pid_t child = fork();
            if (child == 0)
                in = out = connected(path);
            outcome = show("%d", (int)child); /* both answer, the child on its own channel */
        } else {
            outcome = step(line);
            if (err)
                fprintf(stderr, "run: %s\n", dlock_error_message(err));
            dlock_error_free(err);
            err = NULL;
        }
    }
    free(line);
    return 0; /* the rest is the library's */
}
