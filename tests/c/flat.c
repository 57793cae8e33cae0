/* What a hundred thousand locks leave behind: nothing. */
#include "check.h"

#include <dirent.h>

enum { CYCLES = 100000, WARM = 20000 };

static int entries(const char *folder)
{
    DIR *all = opendir(folder);
    int many = 0;
    if (!all)
        abort();
    while (readdir(all))
        many++;
    closedir(all);
    return many;
}

/* Resident memory, in pages. */
static long pages(void)
{
    FILE *file = fopen("/proc/self/statm", "r");
    long all = 0, resident = 0;
    if (!file || fscanf(file, "%ld %ld", &all, &resident) != 2)
        abort();
    fclose(file);
    return resident;
}

static int callbacks;

static void on_acquired(void *user, dlock_status status, dlock_lease *lease, dlock_error *error)
{
    (void)user, (void)status, (void)error;
    dlock_lease_free(lease);
    __sync_fetch_and_add(&callbacks, 1);
}

/* Each kind of handle, made and freed. */
static void cycle(dlock_client *client, int number)
{
    dlock_lease *lease = NULL, *busy = NULL;
    dlock_error *err = NULL;
    if (dlock_acquire(client, "k", NULL, &lease, NULL) != DLOCK_OK)
        CHECK(0);
    if (number % 8 == 0)
        dlock_lease_token(lease);
    if (number % 16 == 0)
        CHECK(dlock_try_acquire(client, "k", NULL, &busy, &err) == DLOCK_TIMEOUT);
    if (number % 32 == 0)
        CHECK(dlock_lease_lost_fd(lease) >= 0);
    if (number % 2 && dlock_release(lease, NULL) != DLOCK_OK)
        CHECK(0);
    dlock_lease_free(lease);
    dlock_error_free(err);
    if (number % 64 == 0) {
        dlock_list *list = NULL;
        dlock_client *again = client_of("memory://again");
        int before = __sync_fetch_and_add(&callbacks, 0);
        CHECK(dlock_query(client, &list, NULL) == DLOCK_OK);
        CHECK(dlock_acquire_async(client, "k", NULL, on_acquired, NULL, NULL, NULL) == DLOCK_OK);
        while (__sync_fetch_and_add(&callbacks, 0) == before)
            sched_yield();
        dlock_list_free(list);
        dlock_client_free(again);
    }
}

static void flat(const char *url)
{
    dlock_client *client = client_of(url);
    int i, files, threads;
    long before;
    for (i = 0; i < WARM; i++)
        cycle(client, i);
    files = entries("/proc/self/fd"), threads = entries("/proc/self/task"), before = pages();
    for (i = 0; i < CYCLES; i++)
        cycle(client, i);
    printf("%s: descriptors %d, then %d; threads %d, then %d; pages %ld, then %ld\n", dlock_backend(client), files,
           entries("/proc/self/fd"), threads, entries("/proc/self/task"), before, pages());
    CHECK(entries("/proc/self/fd") == files);
    CHECK(entries("/proc/self/task") <= threads + 1); /* the pool may grow by one */
    CHECK(pages() - before < 256);                    /* 10 bytes a cycle */
    dlock_client_free(client);
}

int main(void)
{
    flat("memory://flat");
    flat(own_files());
    CHECK(dlock_shutdown(5000) == DLOCK_OK);
    return report();
}
