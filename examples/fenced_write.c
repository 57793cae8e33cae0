/* A write with a fencing token: the database rejects the write of a former holder, however late it comes.
 *
 * No lock can stop a process that sleeps between its last check of the lock and its write. The database can. It stores
 * the greatest fencing token it has seen and rejects a write with a smaller one. */
// libraries: sqlite3
#define _POSIX_C_SOURCE 200809L
#include <stdio.h>
#include <time.h>

#include <dlock.h>
#include <sqlite3.h>

#define UPDATE "UPDATE price SET cents = ?1, fence = ?2 WHERE item = 'tea' AND fence <= ?2"

/* Writes if no later holder has written: 1, 0, or -1 when the database failed. One statement: the comparison and the
 * write can't be torn apart. */
static int write_price(sqlite3 *store, dlock_lease *lease, int cents)
{
    sqlite3_stmt *update = NULL;
    int64_t fence = dlock_lease_fence(lease);
    int changed = -1;
    if (sqlite3_prepare_v2(store, UPDATE, -1, &update, NULL) == SQLITE_OK &&
        sqlite3_bind_int(update, 1, cents) == SQLITE_OK && sqlite3_bind_int64(update, 2, fence) == SQLITE_OK &&
        sqlite3_step(update) == SQLITE_DONE)
        changed = sqlite3_changes(store);
    sqlite3_finalize(update);
    printf("fence %lld: %s\n", (long long)fence, changed == 1 ? "written" : changed == 0 ? "refused" : "failed");
    return changed;
}

/* What the price is; -1 when the database failed. */
static int price(sqlite3 *store)
{
    sqlite3_stmt *select = NULL;
    int cents = -1;
    if (sqlite3_prepare_v2(store, "SELECT cents FROM price", -1, &select, NULL) == SQLITE_OK &&
        sqlite3_step(select) == SQLITE_ROW)
        cents = sqlite3_column_int(select, 0);
    sqlite3_finalize(select);
    return cents;
}

int main(void)
{
    const struct timespec pause = {0, 300000000};
    sqlite3 *store = NULL;
    dlock_client *client = NULL;
    dlock_lease *sleepy = NULL, *awake = NULL;
    dlock_error *err = NULL;
    dlock_options brief = DLOCK_OPTIONS_INIT, patient = DLOCK_OPTIONS_INIT;
    int cents, failed = 1;

    brief.ttl_ms = 200;
    brief.auto_renew = 0;
    patient.wait_ms = 5000;
    if (sqlite3_open(":memory:", &store) != SQLITE_OK ||
        sqlite3_exec(store, "CREATE TABLE price (item TEXT PRIMARY KEY, cents INTEGER, fence INTEGER NOT NULL);"
                            "INSERT INTO price VALUES ('tea', 250, 0)", NULL, NULL, NULL) != SQLITE_OK)
        goto end;
    if (dlock_connect("memory://fenced-write", &client, &err) != DLOCK_OK)
        goto end;

    /* A worker without renewal that sleeps past its ttl, as a paused virtual machine would ... */
    if (dlock_acquire(client, "price:tea", &brief, &sleepy, &err) != DLOCK_OK)
        goto end;
    nanosleep(&pause, NULL);

    /* ... so that another one has the lock, and writes. */
    if (dlock_acquire(client, "price:tea", &patient, &awake, &err) != DLOCK_OK)
        goto end;
    if (write_price(store, awake, 300) != 1 || dlock_release(awake, &err) != DLOCK_OK)
        goto end;

    /* The first wakes up and knows nothing yet. */
    if (write_price(store, sleepy, 199) != 0)
        goto end;
    cents = price(store);
    printf("the price is %d\n", cents);
    failed = cents != 300;

end:
    if (failed)
        fprintf(stderr, "failed: %s\n", err ? dlock_error_message(err) : sqlite3_errmsg(store));
    dlock_error_free(err);
    dlock_lease_free(awake);
    dlock_lease_free(sleepy);
    dlock_client_free(client);
    sqlite3_close(store);
    return failed;
}
