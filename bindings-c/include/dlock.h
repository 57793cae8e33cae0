/* dlock: locks between threads, processes and hosts.
 *
 *     #include <dlock.h>
 *     #include <stdio.h>
 *
 *     int main(void)
 *     {
 *         dlock_client *client = NULL;
 *         dlock_lease *lease = NULL;
 *         dlock_error *err = NULL;
 *         dlock_options options = DLOCK_OPTIONS_INIT;
 *         options.wait_ms = 10000;
 *         if (dlock_connect(NULL, &client, &err) == DLOCK_OK &&
 *             dlock_acquire(client, "nightly-report", &options, &lease, &err) == DLOCK_OK) {
 *             puts("mine");
 *             dlock_release(lease, &err);
 *         }
 *         if (err)
 *             fprintf(stderr, "%s\n", dlock_error_message(err));
 *         dlock_error_free(err);
 *         dlock_lease_free(lease);
 *         dlock_client_free(client);
 *         return 0;
 *     }
 *
 * Made from the Rust behind it: a change belongs there.
 *
 * Handles. dlock_client, dlock_lease, dlock_op, dlock_error and dlock_list are numbers in the shape of pointers, never
 * addresses. NULL, freed, forged and foreign ones are recognised: DLOCK_INVALID, or the value named. Free each once, in any
 * order; freed while another thread uses it, it ends with that call. An acquire in the background ends by itself.
 *
 * Errors. Each function that can fail returns a dlock_status. err may be NULL; else it points to NULL or to an error, which
 * is freed first, so one variable serves any number of calls and is freed after the last. What a function gives comes
 * through its last pointers before err, which are set on DLOCK_OK only; it is the caller's to free.
 *
 * Text is UTF-8 that ends with NUL, and copied where it is kept. What comes from a handle is there until that is freed,
 * what is called static for ever. Times are milliseconds.
 *
 * Threads. Every function may be called from any thread, on the same handle too. A lease belongs to its handle, not to a
 * thread. Callbacks run on a pool of the library, 64 at the most at a time. They may block, call every function, and free
 * what they were called for. They must not leave by an exception, longjmp or pthread_exit. No function is for signal handlers.
 *
 * Cancellation. No function is a cancellation point. A pthread_cancel takes effect when the call has returned and its outcome
 * is in the caller's variables; with PTHREAD_CANCEL_ASYNCHRONOUS that is before the next statement. It does not end a wait:
 * use wait_ms, or dlock_acquire_async with dlock_cancel.
 *
 * Fork. A child may use the library at once, with the clients of its parent. The parent's leases are not held in the child:
 * DLOCK_NOT_HELD; its acquires in the background go on in the parent only. The child frees its handles as its own.
 *
 * Descriptors. The library's are closed on exec and in a child of fork. Use closefrom and its like before the first call, or
 * in a child of fork. Afterwards every call that has to wait gives DLOCK_BACKEND, locks on files are lost, and acquires in the
 * background may never end.
 *
 * Exit. exit(), and the return of main, give everything back and wait until that is confirmed, for 1 s at the most; acquires
 * of other threads don't return any more. dlock_shutdown does it earlier, or with another limit. A process that ends in
 * another way, as by _exit, frees its memory:// and file:// locks at once; on a server they end by their ttl. Every function
 * also works in atexit handlers, in destructors of static objects and in those of thread-specific data. The library stays
 * loaded after dlclose. */

#ifndef DLOCK_H
#define DLOCK_H

#include <stddef.h>
#include <stdint.h>

#define DLOCK_VERSION "0.1.0"
#define DLOCK_VERSION_MAJOR 0
#define DLOCK_VERSION_MINOR 1
#define DLOCK_VERSION_PATCH 0

/* Initialiser for dlock_options. */
#define DLOCK_OPTIONS_INIT {sizeof(dlock_options), DLOCK_OPTIONS_MADE, 1, 0, -1, 0, 0, 0, 0, -1, NULL, NULL}
/* Initialiser for dlock_capability_set. */
#define DLOCK_CAPABILITY_SET_INIT {sizeof(dlock_capability_set), 0, 0, 0, 0, 0, 0, 0, 0, 0, NULL}

// The value that DLOCK_OPTIONS_INIT puts after the size. A struct without it was not made by DLOCK_OPTIONS_INIT.
#define DLOCK_OPTIONS_MADE 1819239275

// Debug: normal lock activity.
#define DLOCK_LOG_DEBUG 0

// Info.
#define DLOCK_LOG_INFO 1

// Warning: needs attention.
#define DLOCK_LOG_WARN 2

// The result of a call. The numbers never change.
typedef enum {
    // Success.
    DLOCK_OK = 0,
    // The lock was busy until the deadline, or the given time has passed.
    DLOCK_TIMEOUT = 1,
    // The caller cancelled the acquire.
    DLOCK_CANCELLED = 2,
    // The lease no longer owns its lock, or can't be proven to own it.
    DLOCK_LOST = 3,
    // Nothing is held: the lease was released, or was made before a fork.
    DLOCK_NOT_HELD = 4,
    // The backend can't be reached, refuses the request or is overloaded.
    DLOCK_BACKEND = 5,
    // A key, option, URL, configuration or handle that can't be used.
    DLOCK_INVALID = 6,
    // The backend doesn't support the request. The message names the backends that do.
    DLOCK_UNSUPPORTED = 7,
    // A defect of this library.
    DLOCK_INTERNAL = 8,
    // The caller itself holds the key, so the wait could never end.
    DLOCK_DEADLOCK = 9,
} dlock_status;

// A client of one backend. Clients of equal configuration share the connection, the local queue and the watchdog.
typedef struct dlock_client dlock_client;

// An error: its status, message, key and backend, and a flag that is set if trying again can help.
typedef struct dlock_error dlock_error;

// A lock that is held until it is released, lost or freed.
typedef struct dlock_lease dlock_lease;

// The result of dlock_contenders and dlock_query.
typedef struct dlock_list dlock_list;

// An acquire in the background.
typedef struct dlock_op dlock_op;

// The capabilities of a backend. Begin with DLOCK_CAPABILITY_SET_INIT. Each int32_t member is 1 or 0.
typedef struct {
    // sizeof(dlock_capability_set), set by DLOCK_CAPABILITY_SET_INIT.
    size_t size;
    // 1 if every grant has a fencing token that is greater than all earlier ones of its key.
    int32_t fence;
    // 1 if the backend itself ends a lock that isn't renewed.
    int32_t ttl;
    // 1 if the order is first come, first served across processes.
    int32_t fifo;
    // 1 if shared locks are supported.
    int32_t shared;
    // 1 if locks with several holders are supported.
    int32_t permits;
    // 1 if the option handoff is supported.
    int32_t handoff;
    // 1 if locks exclude other processes.
    int32_t processes;
    // 1 if a child of fork may use a client that its parent has used.
    int32_t fork;
    // The shortest ttl that the backend can keep.
    int64_t min_ttl_ms;
    // The guarantee of the backend, in one sentence. Static.
    const char *guarantee;
} dlock_capability_set;

// The options of an acquire. Begin with DLOCK_OPTIONS_INIT and change the members that should differ.
typedef struct {
    // sizeof(dlock_options), set by DLOCK_OPTIONS_INIT.
    size_t size;
    // DLOCK_OPTIONS_MADE, set by DLOCK_OPTIONS_INIT and by nothing else.
    uint32_t made;
    // 1 (INIT) if the lease is renewed in the background, every ttl/3; 0 if not.
    int32_t auto_renew;
    // The time for which the backend keeps the lock with no renewal, at least 100 (etcd 2000, MySQL 1000). 0 (INIT):
    // 30 s.
    int64_t ttl_ms;
    // The maximum time to wait for the lock. 0: try once. -1 (INIT): wait for ever.
    int64_t wait_ms;
    // The maximum time to hold the lock. After it the lease is lost and deleted at the backend. 0 (INIT): no limit.
    int64_t max_hold_ms;
    // The time between two tries, if retry_tries is set.
    int64_t retry_delay_ms;
    // The maximum number of tries, instead of a wait. 0 (INIT): wait as wait_ms allows.
    uint32_t retry_tries;
    // The number of times in a row that the lock may be passed on inside this process.
    uint32_t handoff;
    // The order across processes. 1: first come, first served, or DLOCK_UNSUPPORTED. 0: any. -1 (INIT): as the backend
    // does.
    int32_t fair;
    // The owner token: the text that proves ownership. It is stored as given. NULL (INIT): unique to each acquisition.
    const char *token;
    // The free text that dlock_contenders shows. NULL (INIT): none.
    const char *label;
} dlock_options;

// A callback that receives the result of an acquire in the background. The result is DLOCK_OK with a lease, or another
// status with an error. The other pointer is NULL. The user frees the lease. The library frees the error after the
// callback has returned.
typedef void (*dlock_acquired)(void *user, dlock_status status, dlock_lease *lease, dlock_error *error);

// A callback that is called once when a lease is lost.
typedef void (*dlock_lost)(void *user);

// A contender: a holder of a key or a waiter for it. A value that the backend doesn't know is NULL, -1, or a fence of
// 0.
typedef struct {
    // The key.
    const char *key;
    // The owner token.
    const char *token;
    // The owner's label: free text.
    const char *label;
    // The owner's host.
    const char *host;
    // The process id of the owner.
    int64_t pid;
    // The fencing token.
    int64_t fence;
    // The time for which the contender has held the lock, or has waited for it.
    int64_t age_ms;
    // The time for which the backend still keeps the lock with no renewal.
    int64_t ttl_ms;
    // 1 if the contender holds the lock, 0 if it waits.
    int32_t held;
} dlock_contender;

// A function that receives one log line. The string is valid only during the call.
typedef void (*dlock_logger)(void *user, int32_t level, const char *message);

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// Returns the status of an error. Returns DLOCK_OK for NULL and DLOCK_INVALID for a bad handle.
dlock_status dlock_error_status(dlock_error *error);

// Returns the message of an error: the cause with the values, the limit and the remedy. The message contains no
// secrets. It is valid until dlock_error_free. Never returns NULL: the message is "no error" for NULL and bad handles.
const char *dlock_error_message(dlock_error *error);

// Returns the key of an error, as the caller gave it. The text is valid until dlock_error_free. Returns NULL if the
// error concerns no key.
const char *dlock_error_key(dlock_error *error);

// Returns the name of the backend of an error. The text is valid until dlock_error_free. Returns NULL if the error
// concerns no backend.
const char *dlock_error_backend(dlock_error *error);

// Returns 1 if trying again can help, and 0 if not.
int32_t dlock_error_temporary(dlock_error *error);

// Frees an error. Does nothing for NULL and bad handles.
void dlock_error_free(dlock_error *error);

// Returns a short text for a status. Static. Never returns NULL.
const char *dlock_strerror(dlock_status status);

// Returns the version of the running library. DLOCK_VERSION is the version of the header. Static.
const char *dlock_version(void);

// Creates a client for a URL. NULL means the default client: the client that DLOCK_* variables and config.yaml
// configure, or else files of this user on this host. Does no I/O. I/O begins with the first call, or with dlock_ping.
// Clients of one URL share everything. Each call gives a client of its own, so closing it doesn't end the leases of
// another client.
dlock_status dlock_connect(const char *url, dlock_client **client, dlock_error **err);

// Creates the client that a YAML file configures. The file is read strictly.
dlock_status dlock_connect_config(const char *path, dlock_client **client, dlock_error **err);

// Creates a client for a name. The name is registered, or DLOCK_* variables or config.yaml enable it.
dlock_status dlock_connect_service(const char *service, dlock_client **client, dlock_error **err);

// Registers a client under a name. dlock_connect_service then finds the client anywhere in the process, also after
// dlock_client_free.
dlock_status dlock_register(const char *service, dlock_client *client, dlock_error **err);

// Checks that the backend answers.
dlock_status dlock_ping(dlock_client *client, dlock_error **err);

// Ends all leases of this client. They become lost, their holders are notified, and the locks are released. The
// client's waiting acquires and every later call end with DLOCK_INVALID. The handle stays until dlock_client_free.
// Other clients of the same URL are not affected. timeout_ms: the time for the backend to confirm the releases; -1: no
// limit. DLOCK_BACKEND: the backend didn't confirm all of them, and the other locks end by their ttl.
dlock_status dlock_client_close(dlock_client *client, int64_t timeout_ms, dlock_error **err);

// Frees a client's handle. The leases and acquires of the client continue. Does nothing for NULL and bad handles.
void dlock_client_free(dlock_client *client);

// Returns the name of the backend: "memory", "file", "redis" or "etcd". Static. Returns NULL for a bad handle.
const char *dlock_backend(dlock_client *client);

// Copies the capabilities of the backend into a struct that begins with DLOCK_CAPABILITY_SET_INIT.
dlock_status dlock_capabilities(dlock_client *client, dlock_capability_set *capabilities, dlock_error **err);

// Closes every client of this process for good, before an orderly exit. All leases become lost to their holders, and
// the locks are released. All waiting acquires and every later acquire end with DLOCK_INVALID. timeout_ms: the time
// for the backends to confirm the releases; -1: no limit. DLOCK_TIMEOUT: not all were confirmed, and the other locks
// end by their ttl. exit() does the same by itself, within 1 s.
dlock_status dlock_shutdown(int64_t timeout_ms);

// Acquires a lock. The options limit the wait; options may be NULL, which means DLOCK_OPTIONS_INIT. A signal doesn't
// end the wait. To end it from outside, use dlock_acquire_async and dlock_cancel. DLOCK_TIMEOUT: the lock was busy
// until the deadline.
dlock_status dlock_acquire(dlock_client *client,
                           const char *key,
                           const dlock_options *options,
                           dlock_lease **lease,
                           dlock_error **err);

// Tries once to acquire a lock. Ignores wait_ms and retry_tries; the rest is as in dlock_acquire. DLOCK_TIMEOUT: the
// lock is busy.
dlock_status dlock_try_acquire(dlock_client *client,
                               const char *key,
                               const dlock_options *options,
                               dlock_lease **lease,
                               dlock_error **err);

// Begins to acquire a lock and returns at once. The return value reports an argument that can't be used. The callback
// reports every other outcome. The callback runs exactly once if this function returns DLOCK_OK, and never otherwise.
// It runs on a thread of the library's pool, maybe before this function returns, and also after dlock_cancel. op may
// be NULL. Otherwise op receives a handle for dlock_cancel. The handle ends by itself when the callback returns.
dlock_status dlock_acquire_async(dlock_client *client,
                                 const char *key,
                                 const dlock_options *options,
                                 dlock_acquired callback,
                                 void *user,
                                 dlock_op **op,
                                 dlock_error **err);

// Cancels an acquire in the background. The callback gets DLOCK_CANCELLED within 250 ms, or at once after a second
// call of this function. The callback gets DLOCK_OK if the lock had been granted before. Returns DLOCK_INVALID once
// the callback has returned, and in a child of fork.
dlock_status dlock_cancel(dlock_op *op);

// Releases the lock. The handle stays until dlock_lease_free. A second release returns DLOCK_OK and does nothing.
// DLOCK_LOST: the lock had been lost. DLOCK_BACKEND, temporary: the backend didn't confirm the release within 5 s.
// Then the lease is over for this process all the same, and the lock ends by its ttl.
dlock_status dlock_release(dlock_lease *lease, dlock_error **err);

// Frees a lease. A held lock is released in the background; this function doesn't wait for that. Does nothing for NULL
// and bad handles.
void dlock_lease_free(dlock_lease *lease);

// Renews the lease at once. ttl_ms is the new ttl; 0: the granted ttl. DLOCK_LOST and DLOCK_NOT_HELD: as
// dlock_lease_check. DLOCK_INVALID: the backend can't keep the ttl. DLOCK_BACKEND: the backend didn't answer, and the
// lease stays valid until its end.
dlock_status dlock_renew(dlock_lease *lease, int64_t ttl_ms, dlock_error **err);

// Checks by the clock that the lease still owns the lock. Does no I/O. DLOCK_LOST: the lock was lost. DLOCK_NOT_HELD:
// the lease was released, or belongs to a parent of this process.
dlock_status dlock_lease_check(dlock_lease *lease, dlock_error **err);

// Returns the fencing token. Every later grant of the key has a greater one. Returns 0 if the backend has no fencing
// tokens, and for a bad handle.
int64_t dlock_lease_fence(dlock_lease *lease);

// Returns the time for which the lease stays valid with no further renewal. 0: not held. INT64_MAX: no limit. -1: bad
// handle.
int64_t dlock_lease_valid_for_ms(dlock_lease *lease);

// Returns the granted ttl. -1: bad handle.
int64_t dlock_lease_ttl_ms(dlock_lease *lease);

// Returns the owner token: the text that proves ownership. The text is valid until dlock_lease_free. NULL: bad handle.
const char *dlock_lease_token(dlock_lease *lease);

// Returns the key, as the caller gave it. The text is valid until dlock_lease_free. NULL: bad handle.
const char *dlock_lease_key(dlock_lease *lease);

// Waits until the lease is over. DLOCK_LOST: it was lost. DLOCK_NOT_HELD: it was released or freed. DLOCK_TIMEOUT:
// timeout_ms passed before. A timeout_ms of -1 means no limit.
dlock_status dlock_lease_wait_lost(dlock_lease *lease, int64_t timeout_ms, dlock_error **err);

// Registers a callback that runs once when the lease is lost, or at once if the lease is lost already. It runs on a
// thread of the library's pool. It doesn't run when the lease is released. But if a loss happens at the same time as
// the release, the callback may still run, so user has to stay valid for it.
dlock_status dlock_lease_on_lost(dlock_lease *lease, dlock_lost callback, void *user, dlock_error **err);

// Returns a descriptor that becomes readable when the lease is lost, for poll and similar calls. The first call
// creates the descriptor. It belongs to the lease: don't read from it, write to it or close it. dlock_lease_free
// closes it. Returns -1 for a bad handle, or if no descriptor can be created.
int dlock_lease_lost_fd(dlock_lease *lease);

// Lists the contenders of a key: the holder first, then those that wait.
dlock_status dlock_contenders(dlock_client *client, const char *key, dlock_list **list, dlock_error **err);

// Lists the keys that this process holds or waits for through clients of this URL. Sets only `key` and `held` of each
// item. Does no I/O.
dlock_status dlock_query(dlock_client *client, dlock_list **list, dlock_error **err);

// Returns the number of items in the list. Returns 0 for a bad handle.
size_t dlock_list_count(dlock_list *list);

// Returns one item of the list. The first index is 0. The item and its texts are valid until dlock_list_free. Returns
// NULL if index is behind the end, and for a bad handle.
const dlock_contender *dlock_list_at(dlock_list *list, size_t index);

// Frees a list. Does nothing for NULL and bad handles.
void dlock_list_free(dlock_list *list);

// Takes the lock away from its holder. broken may be NULL. Otherwise broken receives 1 if the lock was held, and 0 if
// not. A holder in this process learns of it at once, another one at its next exchange with the backend. Until then
// only the fencing token protects the data.
dlock_status dlock_break_lock(dlock_client *client, const char *key, int32_t *broken, dlock_error **err);

// Sets the callback of the log. It gets one line for each event from now on, in order, one at a time, on a thread of
// its own. The former callback gets no more lines, but a call of it may still run. NULL removes the callback. A slow
// callback delays no lock, but it misses lines. A child of fork has no callback until it sets one.
dlock_status dlock_set_log(dlock_logger callback, void *user);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* DLOCK_H */
