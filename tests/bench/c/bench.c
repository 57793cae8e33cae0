/* The workloads in C, and their raw baselines: one JSON object of figures. For bench.py, which lets slices of both run
 * in turns where this program runs one at a time.
 *
 *   bench a URL                       pairs of one client, in turns with the baseline in here
 *   bench a URL PAIRS                 so many pairs, without it
 *   bench b|d|b-raw|d-raw URL WORKERS one slice of many threads on one key, or on a key each */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <dlock.h>

enum { MOST_WORKERS = 256, ROUNDS = 11 };
/* Seconds: about how long a slice of one client lasts, and how long one of many. */
static const double ALONE = 0.06, TOGETHER = 0.4;

/* raw_file.c, raw_redis.c */
double flock_pairs(const char *path, long n);
void *redis_open(const char *host, int port, const char *key);
int redis_take(void *conn);
int redis_give(void *conn);
double redis_pairs(void *conn, long n);

static const char *url;
static dlock_client *client;
static void *conn;
static char path[4096];
static pthread_mutex_t own[MOST_WORKERS];

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void die(const char *what)
{
    fprintf(stderr, "bench: %s\n", what);
    exit(1);
}

static int is(const char *backend)
{
    return strncmp(url, backend, strlen(backend)) == 0;
}

static void connect_raw(void)
{
    char host[256];
    int port = 0;
    if (sscanf(url, "redis://%255[^:]:%d", host, &port) != 2 || !(conn = redis_open(host, port, "raw")))
        die("no Redis there");
}

static void take(const char *key, dlock_lease **lease)
{
    dlock_error *err = NULL;
    if (dlock_acquire(client, key, NULL, lease, &err) != DLOCK_OK)
        die(dlock_error_message(err));
}

static void give(dlock_lease *lease)
{
    dlock_error *err = NULL;
    if (dlock_release(lease, &err) != DLOCK_OK)
        die(dlock_error_message(err));
    dlock_lease_free(lease);
}

/* ---- one client */

static double pairs(long n)
{
    double begun = now();
    for (long i = 0; i < n; i++) {
        dlock_lease *lease = NULL;
        take("bench-a", &lease);
        give(lease);
    }
    return now() - begun;
}

static double bare_pairs(long n)
{
    double took = 0;
    if (is("redis:")) {
        took = redis_pairs(conn, n);
    } else if (is("file:")) {
        took = flock_pairs(path, n);
    } else {
        double begun = now();
        for (long i = 0; i < n; i++) {
            pthread_mutex_lock(&own[0]);
            pthread_mutex_unlock(&own[0]);
        }
        took = now() - begun;
    }
    if (took < 0)
        die("the baseline failed");
    return took;
}

/* How many fill a slice. */
static long enough(double (*run)(long))
{
    long n = 4;
    double took;
    while ((took = run(n)) < ALONE / 8)
        n *= 2;
    long wanted = (long)((double)n * ALONE / took);
    return wanted < 4 ? 4 : wanted;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values)
{
    qsort(values, ROUNDS, sizeof *values, by_size);
    return values[ROUNDS / 2];
}

/* Without a second thread, a mutex of glibc isn't one. */
static void *idle(void *unused)
{
    pause();
    return unused;
}

static void alone(void)
{
    double rates[ROUNDS], bares[ROUNDS], ratios[ROUNDS];
    pthread_t second;
    if (pthread_create(&second, NULL, idle, NULL) != 0)
        die("no thread");
    if (is("redis:"))
        connect_raw();
    snprintf(path, sizeof path, "%s.raw", url + (is("file://") ? strlen("file://") : 0));
    long n = enough(pairs), bare = enough(bare_pairs);
    for (int i = 0; i < ROUNDS; i++) {
        double early = i % 2 == 0 ? bare_pairs(bare) : 0;
        rates[i] = (double)n / pairs(n);
        bares[i] = (double)bare / (i % 2 == 0 ? early : bare_pairs(bare));
        ratios[i] = rates[i] / bares[i];
    }
    printf("{\"ratio\": %f, \"pairs_per_s\": %f, \"base_per_s\": %f}\n", median(ratios), median(rates), median(bares));
}

static void slice(long n)
{
    pairs(1);
    printf("{\"seconds\": %f}\n", pairs(n));
}

/* ---- many threads */

static int workers, apart, raw, stop;
static pthread_barrier_t start;
/* What they have done, and whether two were ever inside. */
static long counts[MOST_WORKERS], switches, inside, overlaps;
static double longest[MOST_WORKERS];
static int owner = -1;

/* A worker has got the lock for which it asked then, and is inside during this call. */
static void visit(int me, double asked)
{
    double waited = now() - asked;
    if (waited > longest[me])
        longest[me] = waited;
    counts[me]++;
    if (apart)
        return;
    if (__atomic_fetch_add(&inside, 1, __ATOMIC_SEQ_CST) > 0)
        __atomic_fetch_add(&overlaps, 1, __ATOMIC_RELAXED);
    if (__atomic_exchange_n(&owner, me, __ATOMIC_SEQ_CST) != me)
        __atomic_fetch_add(&switches, 1, __ATOMIC_RELAXED);
    __atomic_fetch_sub(&inside, 1, __ATOMIC_SEQ_CST);
}

/* First come, first served among threads; whoever has the turn takes and gives at Redis. */
static struct {
    pthread_mutex_t mutex;
    pthread_cond_t called[MOST_WORKERS];
    int turn[MOST_WORKERS], line[MOST_WORKERS], first, waiting, taken;
} queue = {.mutex = PTHREAD_MUTEX_INITIALIZER};

static void queue_in(int me)
{
    pthread_mutex_lock(&queue.mutex);
    if (queue.taken) {
        queue.turn[me] = 0;
        queue.line[(queue.first + queue.waiting++) % MOST_WORKERS] = me;
        while (!queue.turn[me])
            pthread_cond_wait(&queue.called[me], &queue.mutex);
    }
    queue.taken = 1;
    pthread_mutex_unlock(&queue.mutex);
    if (redis_take(conn) != 0)
        die("a raw SET failed");
}

static void queue_out(void)
{
    if (redis_give(conn) != 0)
        die("a raw EVALSHA failed");
    pthread_mutex_lock(&queue.mutex);
    if (queue.waiting > 0) {
        int next = queue.line[queue.first];
        queue.first = (queue.first + 1) % MOST_WORKERS;
        queue.waiting--;
        queue.turn[next] = 1;
        pthread_cond_signal(&queue.called[next]);
    } else {
        queue.taken = 0;
    }
    pthread_mutex_unlock(&queue.mutex);
}

static void turn(int me, const char *key)
{
    double asked = now();
    if (!raw) {
        dlock_lease *lease = NULL;
        take(key, &lease);
        visit(me, asked);
        give(lease);
    } else if (conn) {
        queue_in(me);
        visit(me, asked);
        queue_out();
    } else {
        pthread_mutex_t *mutex = &own[apart ? me : 0];
        pthread_mutex_lock(mutex);
        visit(me, asked);
        pthread_mutex_unlock(mutex);
    }
}

static void *work(void *argument)
{
    int me = (int)(intptr_t)argument;
    char key[32];
    snprintf(key, sizeof key, "bench-%d", apart ? me : 0);
    if (!raw) {
        dlock_lease *lease = NULL;
        take(key, &lease);
        give(lease);
    }
    pthread_barrier_wait(&start);
    while (!__atomic_load_n(&stop, __ATOMIC_RELAXED))
        turn(me, key);
    return NULL;
}

static void together(void)
{
    const struct timespec slice = {0, (long)(TOGETHER * 1e9)};
    pthread_t threads[MOST_WORKERS];
    if (raw && is("redis:")) {
        if (apart)
            die("for many keys the baseline is one connection that all share: dlock-bench d-raw");
        connect_raw();
    }
    pthread_barrier_init(&start, NULL, (unsigned)workers + 1);
    for (int i = 0; i < workers; i++) {
        pthread_cond_init(&queue.called[i], NULL);
        if (pthread_create(&threads[i], NULL, work, (void *)(intptr_t)i) != 0)
            die("no thread");
    }
    pthread_barrier_wait(&start);
    double begun = now(), waited = 0;
    nanosleep(&slice, NULL);
    __atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
    for (int i = 0; i < workers; i++)
        pthread_join(threads[i], NULL);
    double took = now() - begun;
    long least = counts[0], most = 0, all = 0;
    for (int i = 0; i < workers; i++) {
        all += counts[i];
        least = counts[i] < least ? counts[i] : least;
        most = counts[i] > most ? counts[i] : most;
        waited = longest[i] > waited ? longest[i] : waited;
    }
    printf("{\"grants_per_s\": %f, \"switches_per_s\": %f, \"switched\": %ld, \"longest_ms\": %f, \"least\": %ld, "
           "\"most\": %ld, \"overlaps\": %ld}\n",
           (double)all / took, (double)switches / took, switches, waited * 1e3, least, most, overlaps);
}

int main(int count, char **words)
{
    dlock_error *err = NULL;
    if (count < 3)
        die("a URL [PAIRS] | b URL WORKERS | d URL WORKERS | b-raw URL WORKERS | d-raw URL WORKERS");
    url = words[2];
    workers = count > 3 && words[1][0] != 'a' ? atoi(words[3]) : 1;
    apart = words[1][0] == 'd';
    raw = strstr(words[1], "-raw") != NULL;
    if (workers < 1 || workers > MOST_WORKERS)
        die("how many workers");
    for (int i = 0; i < MOST_WORKERS; i++)
        pthread_mutex_init(&own[i], NULL);
    if (!raw && (dlock_connect(url, &client, &err) != DLOCK_OK || dlock_ping(client, &err) != DLOCK_OK))
        die(dlock_error_message(err));
    if (words[1][0] == 'a' && count > 3)
        slice(atol(words[3]));
    else if (words[1][0] == 'a')
        alone();
    else
        together();
    dlock_client_free(client);
    return 0;
}
