/* A critical section with a distributed lock: one at a time, among all threads and processes of this user.
 *
 * Four processes with four threads each deposit into one account. A deposit reads the balance, works a little and
 * writes the balance back. Without the lock most deposits would get lost. */
#define _XOPEN_SOURCE 700
#include <pthread.h>
#include <stdio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <dlock.h>

enum { PROCESSES = 4, THREADS = 4, DEPOSITS = 5 };

static dlock_client *client;
static int account;

/* Reads, works, writes. Only ever called with the lock held. */
static int add(long amount)
{
    const struct timespec work = {0, 1000000};
    long balance;
    if (pread(account, &balance, sizeof balance, 0) != (ssize_t)sizeof balance)
        return 0;
    nanosleep(&work, NULL);
    balance += amount;
    return pwrite(account, &balance, sizeof balance, 0) == (ssize_t)sizeof balance;
}

/* Waits for the lock as long as it takes. Everything is given back on every way out. */
static int deposit(long amount)
{
    dlock_lease *lease = NULL;
    dlock_error *err = NULL;
    int done = 0;
    if (dlock_acquire(client, "account:7", NULL, &lease, &err) == DLOCK_OK) {
        done = add(amount);
        if (dlock_release(lease, &err) != DLOCK_OK)
            done = 0;
    }
    if (err)
        fprintf(stderr, "%s\n", dlock_error_message(err));
    dlock_error_free(err);
    dlock_lease_free(lease);
    return done;
}

/* One thread; null when all its deposits were made. */
static void *customer(void *failed)
{
    for (int i = 0; i < DEPOSITS; i++) {
        if (!deposit(1))
            return failed;
    }
    return NULL;
}

/* One process. It uses the client of its parent, which connects anew here. */
static int branch(void)
{
    pthread_t threads[THREADS];
    int started = 0, ended = 0;
    while (started < THREADS && pthread_create(&threads[started], NULL, customer, &account) == 0)
        started++;
    for (int i = 0; i < started; i++) {
        void *failed = NULL;
        if (pthread_join(threads[i], &failed) == 0 && !failed)
            ended++;
    }
    return ended == THREADS ? 0 : 1;
}

int main(void)
{
    const long expected = (long)PROCESSES * THREADS * DEPOSITS;
    long balance = 0;
    dlock_error *err = NULL;
    FILE *file = tmpfile();
    int status, good = 0;
    if (!file) {
        perror("tmpfile");
        return 1;
    }
    account = fileno(file);
    if (pwrite(account, &balance, sizeof balance, 0) != (ssize_t)sizeof balance) {
        perror("pwrite");
        return 1;
    }
    /* The default client: files of this user, on this host. No server. */
    if (dlock_connect(NULL, &client, &err) != DLOCK_OK) {
        fprintf(stderr, "%s\n", dlock_error_message(err));
        dlock_error_free(err);
        return 1;
    }
    for (int i = 0; i < PROCESSES; i++) {
        if (fork() == 0)
            _exit(branch());
    }
    while (wait(&status) > 0)
        good += WIFEXITED(status) && WEXITSTATUS(status) == 0;
    if (pread(account, &balance, sizeof balance, 0) != (ssize_t)sizeof balance)
        balance = -1;
    dlock_client_free(client);
    fclose(file);

    printf("%d processes of %d threads, %d deposits each: %ld\n", PROCESSES, THREADS, DEPOSITS, balance);
    return good == PROCESSES && balance == expected ? 0 : 1;
}
