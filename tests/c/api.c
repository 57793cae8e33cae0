/* Every function, used well; and what each refuses. */
#include "check.h"

static int lines;

static void log_line(void *user, int32_t level, const char *message)
{
    CHECK(level >= DLOCK_LOG_DEBUG && level <= DLOCK_LOG_WARN);
    if (strstr(message, "in-the-log"))
        __sync_fetch_and_add((int *)user, 1);
}

static void versions(void)
{
    char text[64];
    snprintf(text, sizeof text, "%d.%d.%d", DLOCK_VERSION_MAJOR, DLOCK_VERSION_MINOR, DLOCK_VERSION_PATCH);
    CHECK(strcmp(text, DLOCK_VERSION) == 0);
    CHECK(strcmp(dlock_version(), DLOCK_VERSION) == 0);
}

static void statuses(void)
{
    int i, j;
    for (i = DLOCK_OK; i <= DLOCK_DEADLOCK; i++) {
        CHECK(*dlock_strerror((dlock_status)i) != 0);
        for (j = DLOCK_OK; j < i; j++)
            CHECK(strcmp(dlock_strerror((dlock_status)i), dlock_strerror((dlock_status)j)) != 0);
    }
#ifndef __cplusplus
    CHECK(*dlock_strerror((dlock_status)99) != 0);
    CHECK(*dlock_strerror((dlock_status)-1) != 0);
#endif
}

static void a_lease(dlock_client *client)
{
    dlock_options options = DLOCK_OPTIONS_INIT;
    dlock_lease *lease, *other = NULL;
    dlock_error *err = NULL;
    const char *token;
    options.ttl_ms = 5000;
    options.label = "a label";
    lease = lease_of(client, "k", &options);
    token = dlock_lease_token(lease);
    CHECK(token && *token && dlock_lease_token(lease) == token);
    CHECK(strcmp(dlock_lease_key(lease), "k") == 0);
    CHECK(dlock_lease_fence(lease) > 0);
    CHECK(dlock_lease_ttl_ms(lease) == 5000);
    CHECK(dlock_lease_valid_for_ms(lease) == INT64_MAX); /* memory, renewed */
    CHECK(dlock_lease_check(lease, &err) == DLOCK_OK && !err);
    CHECK(dlock_renew(lease, 0, &err) == DLOCK_OK);
    CHECK(dlock_renew(lease, 7000, &err) == DLOCK_OK && dlock_lease_ttl_ms(lease) == 7000);
    CHECK(dlock_renew(lease, -1, &err) == DLOCK_INVALID && dlock_error_temporary(err) == 0);

    CHECK(dlock_try_acquire(client, "k", NULL, &other, &err) == DLOCK_TIMEOUT && !other);
    CHECK(dlock_error_status(err) == DLOCK_TIMEOUT && dlock_error_temporary(err) == 1);
    CHECK(strcmp(dlock_error_key(err), "k") == 0 && strcmp(dlock_error_backend(err), "memory") == 0);
    CHECK(strstr(dlock_error_message(err), "busy"));

    CHECK(dlock_release(lease, &err) == DLOCK_OK && !err);
    CHECK(dlock_release(lease, &err) == DLOCK_OK);
    CHECK(dlock_lease_check(lease, &err) == DLOCK_NOT_HELD);
    CHECK(dlock_lease_valid_for_ms(lease) == 0);
    CHECK(dlock_lease_token(lease) == token);
    dlock_lease_free(lease);
    dlock_error_free(err);
}

static void lists(dlock_client *client)
{
    dlock_options options = DLOCK_OPTIONS_INIT;
    dlock_lease *lease;
    dlock_list *list = NULL, *empty = NULL;
    const dlock_contender *holder;
    int32_t broken = 7;
    options.label = "mine";
    lease = lease_of(client, "listed", &options);
    CHECK(dlock_contenders(client, "listed", &list, NULL) == DLOCK_OK && dlock_list_count(list) == 1);
    holder = dlock_list_at(list, 0);
    CHECK(holder && holder->held == 1 && holder->pid == getpid() && holder->age_ms >= 0);
    CHECK(strcmp(holder->key, "listed") == 0 && strcmp(holder->label, "mine") == 0 && *holder->host);
    CHECK(holder->fence == dlock_lease_fence(lease) && strcmp(holder->token, dlock_lease_token(lease)) == 0);
    CHECK(!dlock_list_at(list, 1) && !dlock_list_at(list, SIZE_MAX));
    dlock_list_free(list);

    CHECK(dlock_query(client, &list, NULL) == DLOCK_OK && dlock_list_count(list) == 1);
    holder = dlock_list_at(list, 0);
    CHECK(holder && holder->held == 1 && strcmp(holder->key, "listed") == 0);
    CHECK(!holder->token && !holder->label && !holder->host);
    CHECK(holder->pid == -1 && holder->age_ms == -1 && holder->ttl_ms == -1 && holder->fence == 0);
    dlock_list_free(list);

    CHECK(dlock_break_lock(client, "listed", &broken, NULL) == DLOCK_OK && broken == 1);
    CHECK(dlock_break_lock(client, "listed", &broken, NULL) == DLOCK_OK && broken == 0);
    CHECK(dlock_break_lock(client, "listed", NULL, NULL) == DLOCK_OK);
    CHECK(dlock_contenders(client, "listed", &empty, NULL) == DLOCK_OK && dlock_list_count(empty) == 0);
    CHECK(!dlock_list_at(empty, 0));
    dlock_list_free(empty);
    dlock_lease_free(lease);
}

static void clients(void)
{
    dlock_capability_set can = DLOCK_CAPABILITY_SET_INIT;
    dlock_client *first = client_of("memory://clients"), *second = client_of("memory://clients"), *third = NULL;
    dlock_lease *lease = lease_of(first, "k", NULL), *other = NULL;
    dlock_error *err = NULL;
    CHECK(strcmp(dlock_backend(first), "memory") == 0 && dlock_backend(first) == dlock_backend(second));
    CHECK(dlock_capabilities(first, &can, NULL) == DLOCK_OK && can.fence == 1 && can.fifo == 1 && can.processes == 0);
    CHECK(can.min_ttl_ms == 100 && *can.guarantee && can.size == sizeof can);
    CHECK(dlock_ping(first, NULL) == DLOCK_OK);

    /* Freed with a live lease: the lease goes on. */
    dlock_client_free(first);
    CHECK(dlock_ping(first, NULL) == DLOCK_INVALID);
    CHECK(dlock_lease_check(lease, NULL) == DLOCK_OK);
    CHECK(dlock_renew(lease, 0, NULL) == DLOCK_OK);
    CHECK(dlock_try_acquire(second, "k", NULL, &other, NULL) == DLOCK_TIMEOUT);
    CHECK(dlock_release(lease, NULL) == DLOCK_OK);
    dlock_lease_free(lease);

    /* Closed: its leases are lost and given back, later calls refused, the other client goes on. */
    CHECK(dlock_connect("memory://clients", &third, NULL) == DLOCK_OK);
    lease = lease_of(third, "k", NULL);
    CHECK(dlock_client_close(third, 1000, &err) == DLOCK_OK);
    CHECK(dlock_lease_check(lease, &err) == DLOCK_LOST);
    CHECK(dlock_acquire(third, "k", NULL, &other, &err) == DLOCK_INVALID);
    CHECK(dlock_client_close(third, -1, &err) == DLOCK_OK);
    CHECK(dlock_client_close(third, -2, &err) == DLOCK_INVALID);
    CHECK(dlock_try_acquire(second, "k", NULL, &other, &err) == DLOCK_OK);
    dlock_client_free(third);
    dlock_lease_free(lease);
    dlock_lease_free(other);

    /* By name. */
    CHECK(dlock_register("mine", second, &err) == DLOCK_OK);
    dlock_client_free(second);
    CHECK(dlock_connect_service("mine", &second, &err) == DLOCK_OK);
    CHECK(strcmp(dlock_backend(second), "memory") == 0);
    CHECK(dlock_connect_service("nobody's", &third, &err) == DLOCK_INVALID);
    CHECK(strstr(dlock_error_message(err), "mine"));
    CHECK(dlock_register("", second, &err) == DLOCK_INVALID);
    CHECK(dlock_connect_config("/nowhere/dlock.yaml", &third, &err) == DLOCK_INVALID);
    CHECK(strstr(dlock_error_message(err), "/nowhere/dlock.yaml"));
    CHECK(dlock_connect("nosuch://host", &third, &err) == DLOCK_INVALID);
    dlock_client_free(second);
    dlock_error_free(err);
}

static void freed_while_held(dlock_client *client)
{
    dlock_lease *lease = lease_of(client, "freed", NULL);
    dlock_lease_free(lease);
    CHECK(is_free_soon(client, "freed"));
}

static void errors_in_errors(dlock_client *client)
{
    dlock_lease *lease = NULL;
    dlock_error *err = NULL, *before;
    CHECK(dlock_acquire(client, "", NULL, &lease, &err) == DLOCK_INVALID && err);
    before = err;
    CHECK(dlock_acquire(client, NULL, NULL, &lease, &err) == DLOCK_INVALID && err && err != before);
    CHECK(dlock_error_status(before) == DLOCK_INVALID && strcmp(dlock_error_message(before), "no error") == 0);
    CHECK(strstr(dlock_error_message(err), "key is NULL"));
    before = err;
    CHECK(dlock_acquire(client, "k", NULL, &lease, &err) == DLOCK_OK && !err);
    CHECK(strcmp(dlock_error_message(before), "no error") == 0);
    dlock_lease_free(lease);
    /* A variable that was never set is no error of ours. */
    err = (dlock_error *)&lease;
    CHECK(dlock_ping(client, &err) == DLOCK_OK && !err);
}

static void on_acquired(void *user, dlock_status status, dlock_lease *lease, dlock_error *error)
{
    (void)user, (void)status, (void)lease, (void)error;
    CHECK(0); /* nothing here begins */
}

static void refused(dlock_client *client, const dlock_options *options, const char *text)
{
    dlock_lease *lease = NULL;
    dlock_op *op = NULL;
    dlock_error *err = NULL;
    CHECK(dlock_acquire(client, "k", options, &lease, &err) == DLOCK_INVALID && !lease);
    if (!CHECK(strstr(dlock_error_message(err), text)))
        fprintf(stderr, "%s\n", dlock_error_message(err));
    CHECK(dlock_try_acquire(client, "k", options, &lease, &err) == DLOCK_INVALID && !lease);
    CHECK(dlock_acquire_async(client, "k", options, on_acquired, NULL, &op, &err) == DLOCK_INVALID && !op);
    dlock_error_free(err);
}

static void arguments(dlock_client *client)
{
    static const size_t sizes[] = {0, 1, sizeof(size_t), sizeof(dlock_options) - 8, sizeof(dlock_options) + 8, SIZE_MAX};
    const dlock_options plain = DLOCK_OPTIONS_INIT;
    dlock_options options;
    dlock_capability_set can = DLOCK_CAPABILITY_SET_INIT;
    dlock_lease *lease = NULL;
    dlock_list *list = NULL;
    dlock_client *none = NULL;
    dlock_error *err = NULL;
    size_t i;
    for (i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        options = plain;
        options.size = sizes[i];
        refused(client, &options, "size of");
        can.size = sizes[i];
        can.fence = 42;
        if (sizes[i] != sizeof can)
            CHECK(dlock_capabilities(client, &can, &err) == DLOCK_INVALID && can.fence == 42);
    }
    memset(&options, 0, sizeof options);
    refused(client, &options, "DLOCK_OPTIONS_INIT");
    options.size = sizeof options; /* as by designators */
    options.wait_ms = -1;
    options.auto_renew = 1;
    refused(client, &options, "DLOCK_OPTIONS_INIT");
#define REFUSED(member, value, text) \
    options = plain;                 \
    options.member = value;          \
    refused(client, &options, text)
    REFUSED(ttl_ms, -5, "ttl_ms of -5");
    REFUSED(ttl_ms, INT64_MIN, "ttl_ms of -9223372036854775808");
    REFUSED(ttl_ms, 99, "100ms");
    REFUSED(ttl_ms, INT64_MAX, "ttl");
    REFUSED(wait_ms, -2, "wait_ms of -2");
    REFUSED(wait_ms, INT64_MAX, "wait");
    REFUSED(max_hold_ms, -1, "max_hold_ms of -1");
    REFUSED(retry_delay_ms, 10, "retry");
    REFUSED(retry_delay_ms, -10, "retry_delay_ms of -10");
    REFUSED(auto_renew, 2, "auto_renew of 2");
    REFUSED(fair, 2, "fair of 2");
    REFUSED(fair, -2, "fair of -2");
    REFUSED(token, "", "token");
    REFUSED(token, "\xff", "token is not UTF-8");
    REFUSED(label, "a\xc3(", "label is not UTF-8: the byte 0xc3 at 1");

    CHECK(dlock_acquire(client, "\xff", NULL, &lease, &err) == DLOCK_INVALID);
    CHECK(dlock_acquire(client, NULL, NULL, &lease, &err) == DLOCK_INVALID);
    CHECK(dlock_acquire(client, "k", NULL, NULL, &err) == DLOCK_INVALID);
    CHECK(dlock_acquire(client, "k", NULL, NULL, NULL) == DLOCK_INVALID);
    CHECK(dlock_try_acquire(client, "k", NULL, NULL, &err) == DLOCK_INVALID);
    CHECK(dlock_acquire_async(client, "k", NULL, NULL, NULL, NULL, &err) == DLOCK_INVALID);
    CHECK(dlock_acquire_async(client, NULL, NULL, on_acquired, NULL, NULL, &err) == DLOCK_INVALID);
    CHECK(dlock_contenders(client, NULL, &list, &err) == DLOCK_INVALID);
    CHECK(dlock_contenders(client, "k", NULL, &err) == DLOCK_INVALID);
    CHECK(dlock_query(client, NULL, &err) == DLOCK_INVALID);
    CHECK(dlock_break_lock(client, NULL, NULL, &err) == DLOCK_INVALID);
    CHECK(dlock_capabilities(client, NULL, &err) == DLOCK_INVALID);
    CHECK(dlock_connect("memory://", NULL, &err) == DLOCK_INVALID);
    /* Nobody's default: NULL alone asks for that. */
    CHECK(dlock_connect("", &none, &err) == DLOCK_INVALID && strstr(dlock_error_message(err), "variable isn't set"));
    CHECK(dlock_connect(" ", &none, &err) == DLOCK_INVALID);
    CHECK(dlock_connect_config("", &none, &err) == DLOCK_INVALID);
    CHECK(dlock_connect_service("", &none, &err) == DLOCK_INVALID);
    CHECK(dlock_connect("memory://\xff", &none, &err) == DLOCK_INVALID);
    CHECK(dlock_connect_config(NULL, &none, &err) == DLOCK_INVALID);
    CHECK(dlock_connect_service(NULL, &none, &err) == DLOCK_INVALID);
    CHECK(dlock_register(NULL, client, &err) == DLOCK_INVALID);
    CHECK(dlock_shutdown(-2) == DLOCK_INVALID);
    CHECK(!lease && !list && !none);
    lease = lease_of(client, "k", NULL); /* nothing of all that holds it */
    CHECK(dlock_lease_on_lost(lease, NULL, NULL, &err) == DLOCK_INVALID);
    CHECK(dlock_lease_wait_lost(lease, -2, &err) == DLOCK_INVALID);
    dlock_lease_free(lease);
    dlock_error_free(err);
}

static void logging(dlock_client *client)
{
    int i;
    CHECK(dlock_set_log(log_line, &lines) == DLOCK_OK);
    dlock_lease_free(lease_of(client, "in-the-log", NULL));
    for (i = 0; i < 5000 && __sync_fetch_and_add(&lines, 0) < 2; i++)
        pause_ms(1);
    CHECK(__sync_fetch_and_add(&lines, 0) == 2); /* granted, released */
    CHECK(dlock_set_log(NULL, NULL) == DLOCK_OK);
    dlock_lease_free(lease_of(client, "in-the-log", NULL));
    pause_ms(50);
    CHECK(__sync_fetch_and_add(&lines, 0) == 2);
}

int main(void)
{
    dlock_client *client = client_of("memory://api");
    versions();
    statuses();
    a_lease(client);
    lists(client);
    clients();
    freed_while_held(client);
    errors_in_errors(client);
    arguments(client);
    logging(client);
    dlock_client_free(client);
    CHECK(dlock_shutdown(5000) == DLOCK_OK);
    return report();
}
