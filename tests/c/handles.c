/* Handles that aren't: NULL, freed, forged, changed in one bit, or of another kind. Every function stands them. */
#include "check.h"

static void never(void *user, dlock_status status, dlock_lease *lease, dlock_error *error)
{
    (void)user, (void)status, (void)lease, (void)error;
    CHECK(0);
}

static void never_lost(void *user)
{
    (void)user;
    CHECK(0);
}

static void no_client(void *number)
{
    dlock_client *bad = (dlock_client *)number;
    dlock_capability_set can = DLOCK_CAPABILITY_SET_INIT;
    dlock_lease *lease = NULL;
    dlock_list *list = NULL;
    dlock_op *op = NULL;
    dlock_error *err = NULL;
    int32_t broken = 7;
    dlock_client_free(bad);
    CHECK(dlock_ping(bad, &err) == DLOCK_INVALID);
    CHECK(dlock_error_status(err) == DLOCK_INVALID && strstr(dlock_error_message(err), "the client"));
    CHECK(dlock_register("x", bad, &err) == DLOCK_INVALID);
    CHECK(dlock_client_close(bad, 0, &err) == DLOCK_INVALID);
    CHECK(!dlock_backend(bad));
    CHECK(dlock_capabilities(bad, &can, &err) == DLOCK_INVALID);
    CHECK(dlock_acquire(bad, "k", NULL, &lease, &err) == DLOCK_INVALID);
    CHECK(dlock_try_acquire(bad, "k", NULL, &lease, &err) == DLOCK_INVALID);
    CHECK(dlock_acquire_async(bad, "k", NULL, never, NULL, &op, &err) == DLOCK_INVALID);
    CHECK(dlock_contenders(bad, "k", &list, &err) == DLOCK_INVALID);
    CHECK(dlock_query(bad, &list, &err) == DLOCK_INVALID);
    CHECK(dlock_break_lock(bad, "k", &broken, NULL) == DLOCK_INVALID && broken == 7);
    CHECK(!lease && !list && !op);
    dlock_error_free(err);
}

static void no_lease(void *number)
{
    dlock_lease *bad = (dlock_lease *)number;
    dlock_error *err = NULL;
    dlock_lease_free(bad);
    CHECK(dlock_release(bad, &err) == DLOCK_INVALID);
    CHECK(dlock_error_status(err) == DLOCK_INVALID && strstr(dlock_error_message(err), "the lease"));
    CHECK(dlock_renew(bad, 0, &err) == DLOCK_INVALID);
    CHECK(dlock_lease_check(bad, NULL) == DLOCK_INVALID);
    CHECK(dlock_lease_fence(bad) == 0);
    CHECK(dlock_lease_valid_for_ms(bad) == -1);
    CHECK(dlock_lease_ttl_ms(bad) == -1);
    CHECK(!dlock_lease_token(bad) && !dlock_lease_key(bad));
    CHECK(dlock_lease_lost_fd(bad) == -1);
    CHECK(dlock_lease_on_lost(bad, never_lost, NULL, &err) == DLOCK_INVALID);
    CHECK(dlock_lease_wait_lost(bad, -1, &err) == DLOCK_INVALID);
    dlock_error_free(err);
}

static void no_op(void *number)
{
    CHECK(dlock_cancel((dlock_op *)number) == DLOCK_INVALID);
}

static void no_error(void *number)
{
    dlock_error *bad = (dlock_error *)number;
    dlock_error_free(bad);
    CHECK(dlock_error_status(bad) == (number ? DLOCK_INVALID : DLOCK_OK));
    CHECK(strcmp(dlock_error_message(bad), "no error") == 0);
    CHECK(!dlock_error_key(bad) && !dlock_error_backend(bad));
    CHECK(dlock_error_temporary(bad) == 0);
}

static void no_list(void *number)
{
    dlock_list *bad = (dlock_list *)number;
    dlock_list_free(bad);
    CHECK(dlock_list_count(bad) == 0);
    CHECK(!dlock_list_at(bad, 0));
}

enum { CLIENT, LEASE, OP, ERROR, LIST, KINDS };
static void (*const none[KINDS])(void *) = {no_client, no_lease, no_op, no_error, no_list};

static void nothing_at_all(void *number)
{
    int kind;
    for (kind = 0; kind < KINDS; kind++)
        none[kind](number);
}

static int acquired;

static void on_acquired(void *user, dlock_status status, dlock_lease *lease, dlock_error *error)
{
    (void)user;
    CHECK(status == DLOCK_CANCELLED && !lease && dlock_error_status(error) == DLOCK_CANCELLED);
    __sync_fetch_and_add(&acquired, 1);
}

int main(void)
{
    static const uintptr_t forged[] = {0, 1, 2, 3, 8, 0x7fffffff, 0xdeadbeef, UINTPTR_MAX, UINTPTR_MAX >> 1, ~(UINTPTR_MAX >> 1)};
    dlock_client *client = client_of("memory://handles");
    dlock_lease *lease = lease_of(client, "k", NULL);
    dlock_op *op = NULL;
    dlock_list *list = NULL;
    dlock_error *err = NULL;
    void *good[KINDS];
    size_t i, kind, other, bit;
    int on_stack = 0;

    CHECK(dlock_acquire_async(client, "k", NULL, on_acquired, NULL, &op, NULL) == DLOCK_OK);
    for (i = 0; i < 5000 && dlock_list_count(list) < 2; i++) { /* until it stands in the queue */
        pause_ms(1);
        dlock_list_free(list);
        CHECK(dlock_query(client, &list, NULL) == DLOCK_OK);
    }
    CHECK(dlock_ping(NULL, &err) == DLOCK_INVALID);
    good[CLIENT] = client, good[LEASE] = lease, good[OP] = op, good[ERROR] = err, good[LIST] = list;

    for (i = 0; i < sizeof forged / sizeof *forged; i++)
        nothing_at_all((void *)forged[i]);
    nothing_at_all(&on_stack);
    nothing_at_all((void *)dlock_version());

    for (kind = 0; kind < KINDS; kind++) {
        CHECK(good[kind] && (uintptr_t)good[kind] % 2 == 1); /* never the address of anything */
        for (bit = 0; bit < 8 * sizeof(void *); bit++) {
            void *near = (void *)((uintptr_t)good[kind] ^ (uintptr_t)1 << bit);
            for (other = 0; other < KINDS && near != good[other]; other++)
                ;
            if (other == KINDS)
                nothing_at_all(near);
        }
        for (other = 0; other < KINDS; other++) {
            if (other != kind)
                none[other](good[kind]);
        }
    }
    /* After all that, each is what it was. */
    CHECK(dlock_ping(client, NULL) == DLOCK_OK);
    CHECK(dlock_lease_check(lease, NULL) == DLOCK_OK);
    CHECK(dlock_error_status(err) == DLOCK_INVALID && *dlock_error_message(err) == 't');
    CHECK(dlock_list_count(list) == 2);
    CHECK(__sync_fetch_and_add(&acquired, 0) == 0 && dlock_cancel(op) == DLOCK_OK);
    for (i = 0; i < 5000 && !__sync_fetch_and_add(&acquired, 0); i++)
        pause_ms(1);
    for (i = 0; i < 5000 && dlock_cancel(op) == DLOCK_OK; i++)
        pause_ms(1);
    CHECK(__sync_fetch_and_add(&acquired, 0) == 1);

    dlock_list_free(list);
    dlock_error_free(err);
    dlock_lease_free(lease);
    dlock_client_free(client);
    /* Freed: also when their places have been given to others. */
    for (kind = 0; kind < KINDS; kind++)
        nothing_at_all(good[kind]);
    client = client_of("memory://handles");
    lease = lease_of(client, "k", NULL);
    CHECK(dlock_query(client, &list, NULL) == DLOCK_OK);
    for (kind = 0; kind < KINDS; kind++)
        nothing_at_all(good[kind]);
    CHECK(dlock_lease_check(lease, NULL) == DLOCK_OK && dlock_list_count(list) == 1);
    dlock_list_free(list);
    dlock_lease_free(lease);
    dlock_client_free(client);
    return report();
}
