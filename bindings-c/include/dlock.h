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

// What DLOCK_OPTIONS_INIT puts behind the size: a struct without it was not made by that.
#define DLOCK_OPTIONS_MADE 1819239275

// Debug: normal lock activity.
#define DLOCK_LOG_DEBUG 0

// Info.
#define DLOCK_LOG_INFO 1

// Warning: needs attention.
#define DLOCK_LOG_WARN 2

// How a call ended. The numbers never change.
typedef enum {
    // Done.
    DLOCK_OK = 0,
    // The lock was busy until the deadline, or the time given was up.
    DLOCK_TIMEOUT = 1,
    // The caller withdrew.
    DLOCK_CANCELLED = 2,
    // The lease is no longer ours, or can't be proven to be.
    DLOCK_LOST = 3,
    // Nothing is held: the lease was released, or made before a fork.
    DLOCK_NOT_HELD = 4,
    // The backend can't be reached, refuses or is overloaded.
    DLOCK_BACKEND = 5,
    // A key, option, URL, configuration or handle that can't be used.
    DLOCK_INVALID = 6,
    // This backend can't do it; the message names those that can.
    DLOCK_UNSUPPORTED = 7,
    // A defect of this library.
    DLOCK_INTERNAL = 8,
    // The caller itself holds the key, so the wait could never end.
    DLOCK_DEADLOCK = 9,
} dlock_status;

// One backend, and what this process shares for it.
typedef struct dlock_client dlock_client;

// What went wrong: status, message, key, backend, and whether trying again can help.
typedef struct dlock_error dlock_error;

// A lock that is held, until it is released, lost or freed.
typedef struct dlock_lease dlock_lease;

// What dlock_contenders and dlock_query give.
typedef struct dlock_list dlock_list;

// An acquire in the background.
typedef struct dlock_op dlock_op;

// What a backend can do and promises; 1 or 0 each. Begin with DLOCK_CAPABILITY_SET_INIT.
typedef struct {
    // sizeof(dlock_capability_set), set by DLOCK_CAPABILITY_SET_INIT.
    size_t size;
    // Every grant has a fencing token, greater than all before of its key.
    int32_t fence;
    // A lock that isn't renewed ends at the backend by itself.
    int32_t ttl;
    // First come, first served across processes.
    int32_t fifo;
    // Shared locks.
    int32_t shared;
    // Locks with several holders.
    int32_t permits;
    // The option handoff.
    int32_t handoff;
    // Locks exclude other processes.
    int32_t processes;
    // A client may be used in a child of fork after its parent has used it.
    int32_t fork;
    // The shortest ttl it can keep.
    int64_t min_ttl_ms;
    // What it guarantees, in a sentence. Static.
    const char *guarantee;
} dlock_capability_set;

// The options of an acquire. Begin with DLOCK_OPTIONS_INIT and change what shall differ.
typedef struct {
    // sizeof(dlock_options), set by DLOCK_OPTIONS_INIT.
    size_t size;
    // DLOCK_OPTIONS_MADE, set by DLOCK_OPTIONS_INIT and by nothing else.
    uint32_t made;
    // Whether the lease is renewed in the background, every ttl/3. 1, INIT, or 0.
    int32_t auto_renew;
    // How long the backend keeps the lock with no renewal, at least 100 (etcd 2000, MySQL 1000). 0: 30 s.
    int64_t ttl_ms;
    // How long to wait for the lock in all. 0: try once; -1, INIT: for ever.
    int64_t wait_ms;
    // After this long the lease is lost and deleted at the backend. 0: no limit.
    int64_t max_hold_ms;
    // With retry_tries: how far apart the tries are.
    int64_t retry_delay_ms;
    // Instead of waiting: at most so many tries. 0: wait as wait_ms says.
    uint32_t retry_tries;
    // How many times in a row the lock may be passed on inside this process.
    uint32_t handoff;
    // First come, first served across processes. -1, INIT: as the backend does; 1: yes, or DLOCK_UNSUPPORTED; 0.
    int32_t fair;
    // The text that proves ownership, stored as given. NULL: unique to each acquisition.
    const char *token;
    // Free text shown by dlock_contenders. NULL: none.
    const char *label;
} dlock_options;

// How an acquire in the background ended: with DLOCK_OK and a lease, which is the callback's to free from here on, or with
// another status and an error, which is freed after the callback has returned. The other one is NULL.
typedef void (*dlock_acquired)(void *user, dlock_status status, dlock_lease *lease, dlock_error *error);

// Called once when a lease is lost.
typedef void (*dlock_lost)(void *user);

// A contender: it holds a key or waits for it. What the backend can't tell is NULL, -1, or a fence of 0.
typedef struct {
    // The key.
    const char *key;
    // The owner's token.
    const char *token;
    // The owner's free text.
    const char *label;
    // The owner's host.
    const char *host;
    // The owner's process.
    int64_t pid;
    // The fencing token.
    int64_t fence;
    // How long it has held, or waited.
    int64_t age_ms;
    // How long the backend still keeps the lock with no renewal.
    int64_t ttl_ms;
    // 1: it holds the lock; 0: it waits.
    int32_t held;
} dlock_contender;

// Receives one log line; the string is valid only during the call.
typedef void (*dlock_logger)(void *user, int32_t level, const char *message);

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// What the error is. DLOCK_OK for NULL, DLOCK_INVALID for a bad handle.
dlock_status dlock_error_status(dlock_error *error);

// What went wrong, with the values, the limit and the remedy; no secrets. Until dlock_error_free. Never NULL: "no error"
// for NULL and bad handles.
const char *dlock_error_message(dlock_error *error);

// The key concerned, as given. Until dlock_error_free. NULL when it concerns none.
const char *dlock_error_key(dlock_error *error);

// The backend concerned. Until dlock_error_free. NULL when it concerns none.
const char *dlock_error_backend(dlock_error *error);

// Whether trying again can help: 1 or 0.
int32_t dlock_error_temporary(dlock_error *error);

// Frees an error. NULL and bad handles: nothing.
void dlock_error_free(dlock_error *error);

// A status in a few words. Static; never NULL.
const char *dlock_strerror(dlock_status status);

// The version of the library that runs, as DLOCK_VERSION is that of the header. Static.
const char *dlock_version(void);

// The client for a URL; for NULL the default one, from DLOCK_* variables and config.yaml, or else files of this user on
// this host. No I/O: that begins with the first call, or with dlock_ping. Clients of one URL share everything. Each call
// gives a client of its own: to close it ends the leases of no other.
dlock_status dlock_connect(const char *url,
                           dlock_client **client,
                           dlock_error **err);

// The client that a YAML file says, which is read strictly.
dlock_status dlock_connect_config(const char *path, dlock_client **client, dlock_error **err);

// The client of this name: registered, or enabled by DLOCK_* variables or config.yaml.
dlock_status dlock_connect_service(const char *service, dlock_client **client, dlock_error **err);

// Names a client, so that dlock_connect_service finds it anywhere in the process, also after dlock_client_free.
dlock_status dlock_register(const char *service, dlock_client *client, dlock_error **err);

// Checks that the backend answers.
dlock_status dlock_ping(dlock_client *client, dlock_error **err);

// Ends all leases of this client: they are lost to their holders, who are told, and given back. Ends its waiters with
// DLOCK_INVALID, as it does every later call. The handle stays until dlock_client_free. Other clients of the same URL go
// on. timeout_ms: for the backend to confirm; -1 without end. DLOCK_BACKEND when it doesn't: the locks end by their ttl.
dlock_status dlock_client_close(dlock_client *client,
                                int64_t timeout_ms,
                                dlock_error **err);

// Frees a client's handle. Its leases and acquires go on. NULL and bad handles: nothing.
void dlock_client_free(dlock_client *client);

// The backend's name: "memory", "file", "redis". Static. NULL for a bad handle.
const char *dlock_backend(dlock_client *client);

// What the backend can do and promises, into a struct that begins with DLOCK_CAPABILITY_SET_INIT.
dlock_status dlock_capabilities(dlock_client *client, dlock_capability_set *capabilities, dlock_error **err);

// For an orderly exit: closes every client of this process, for good. All leases are lost to their holders and given
// back, all waiters and every later acquire end with DLOCK_INVALID. timeout_ms: for the backends to confirm; -1 without
// end. DLOCK_TIMEOUT when not all was confirmed: those locks end by their ttl. exit() does this by itself, within 1 s.
dlock_status dlock_shutdown(int64_t timeout_ms);

// Acquires a lock, waiting as the options say; options may be NULL: DLOCK_OPTIONS_INIT. No signal ends the wait: for that
// there is dlock_acquire_async. DLOCK_TIMEOUT: busy until the deadline.
dlock_status dlock_acquire(dlock_client *client,
                           const char *key,
                           const dlock_options *options,
                           dlock_lease **lease,
                           dlock_error **err);

// As dlock_acquire, but tries only once, whatever the options say. DLOCK_TIMEOUT: busy.
dlock_status dlock_try_acquire(dlock_client *client,
                               const char *key,
                               const dlock_options *options,
                               dlock_lease **lease,
                               dlock_error **err);

// Begins to acquire a lock and returns at once. What can't be used is told by the return value, every other outcome by the
// callback: it runs exactly once if this returns DLOCK_OK, and never if not; on a thread of the library's pool, maybe
// before this returns, also after dlock_cancel. op may be NULL; else it gets what dlock_cancel takes, which ends by itself
// when the callback returns.
dlock_status dlock_acquire_async(dlock_client *client,
                                 const char *key,
                                 const dlock_options *options,
                                 dlock_acquired callback,
                                 void *user,
                                 dlock_op **op,
                                 dlock_error **err);

// Ends an acquire in the background: its callback is told DLOCK_CANCELLED within 250 ms, at once by a second call, or
// DLOCK_OK if it had the lock already. DLOCK_INVALID once the callback has returned, and in a child of fork.
dlock_status dlock_cancel(dlock_op *op);

// Gives the lock back; the handle stays until dlock_lease_free. A second time: DLOCK_OK, and nothing happens. DLOCK_LOST
// when it had been lost; DLOCK_BACKEND, temporary, when the backend didn't confirm it within 5 s: it is over for this
// process all the same, and ends by its ttl.
dlock_status dlock_release(dlock_lease *lease,
                           dlock_error **err);

// Frees a lease. One that is held is given back in the background; this doesn't wait for it. NULL and bad handles: nothing.
void dlock_lease_free(dlock_lease *lease);

// Renews by hand, with a new ttl, or with the one granted: 0. DLOCK_LOST, DLOCK_NOT_HELD, DLOCK_INVALID for a ttl the
// backend can't keep; DLOCK_BACKEND when it didn't answer: then the lease counts on until its end.
dlock_status dlock_renew(dlock_lease *lease, int64_t ttl_ms, dlock_error **err);

// Makes sure that the lock is still ours, by the clock; no I/O. DLOCK_LOST; DLOCK_NOT_HELD when it was released, or by a
// parent of this process.
dlock_status dlock_lease_check(dlock_lease *lease,
                               dlock_error **err);

// The fencing token: greater for every later grant of the key. 0: the backend has none, or a bad handle.
int64_t dlock_lease_fence(dlock_lease *lease);

// How long it still counts with no further renewal. 0: not held; INT64_MAX: no limit; -1: a bad handle.
int64_t dlock_lease_valid_for_ms(dlock_lease *lease);

// The ttl that was granted. -1: a bad handle.
int64_t dlock_lease_ttl_ms(dlock_lease *lease);

// The text that proves ownership. Until dlock_lease_free. NULL: a bad handle.
const char *dlock_lease_token(dlock_lease *lease);

// The key, as given. Until dlock_lease_free. NULL: a bad handle.
const char *dlock_lease_key(dlock_lease *lease);

// Waits until the lease is over: DLOCK_LOST when it was lost, DLOCK_NOT_HELD when it was released or freed, DLOCK_TIMEOUT
// when the time came first. -1: without end.
dlock_status dlock_lease_wait_lost(dlock_lease *lease,
                                   int64_t timeout_ms,
                                   dlock_error **err);

// Has the callback run once when the lease is lost, at once if it was: on a thread of the library's pool. Not when it is
// released; but a loss that happened at the same time may still be told, so user has to outlast that.
dlock_status dlock_lease_on_lost(dlock_lease *lease,
                                 dlock_lost callback,
                                 void *user,
                                 dlock_error **err);

// A descriptor that becomes readable when the lease is lost, for poll and its like; made by the first call. It is the
// lease's: not to be read from, written to or closed, and gone with dlock_lease_free. -1: a bad handle, or no descriptor
// to be had.
int dlock_lease_lost_fd(dlock_lease *lease);

// Who holds the key and who waits for it, holder first.
dlock_status dlock_contenders(dlock_client *client, const char *key, dlock_list **list, dlock_error **err);

// Which keys this process holds and waits for by clients of this URL; only `key` and `held` are told. No I/O.
dlock_status dlock_query(dlock_client *client, dlock_list **list, dlock_error **err);

// How many are in the list. 0 for a bad handle.
size_t dlock_list_count(dlock_list *list);

// One of the list, from 0. It and its texts are there until dlock_list_free. NULL: behind the end, or a bad handle.
const dlock_contender *dlock_list_at(dlock_list *list, size_t index);

// Frees a list. NULL and bad handles: nothing.
void dlock_list_free(dlock_list *list);

// Takes the lock away from whoever holds it. broken may be NULL; else it gets 1 if anybody held it, or 0. The holder
// learns of it at its next exchange with the backend: until then only the fencing token guards what it does.
dlock_status dlock_break_lock(dlock_client *client, const char *key, int32_t *broken, dlock_error **err);

// Has the callback get a line for everything that happens from now on, in order, on a thread of its own: one at a time; a
// former one gets no more, though a call of it may be under way. NULL: nobody. A slow one delays no lock, but misses
// lines. A child of fork has none until it sets one.
dlock_status dlock_set_log(dlock_logger callback,
                           void *user);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* DLOCK_H */
