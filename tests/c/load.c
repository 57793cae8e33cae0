/* The library loaded by name, while the program runs, and dismissed with its threads at work. */
#include <dlfcn.h>

#include "check.h"

static void *found(void *library, const char *name)
{
    void *at = dlsym(library, name);
    CHECK(at != NULL);
    return at;
}

int main(int count, char **words)
{
    dlock_status (*connect_to)(const char *, dlock_client **, dlock_error **);
    dlock_status (*acquire)(dlock_client *, const char *, const dlock_options *, dlock_lease **, dlock_error **);
    dlock_status (*release)(dlock_lease *, dlock_error **);
    dlock_options options = DLOCK_OPTIONS_INIT;
    dlock_client *client = NULL;
    dlock_lease *lease = NULL, *other = NULL;
    void *library = dlopen(count > 1 ? words[1] : "libdlock.so.0", RTLD_NOW | RTLD_LOCAL);
    if (!CHECK(library != NULL))
        return report();
    *(void **)&connect_to = found(library, "dlock_connect");
    *(void **)&acquire = found(library, "dlock_acquire");
    *(void **)&release = found(library, "dlock_release");
    options.wait_ms = 20;
    CHECK(connect_to("memory://loaded", &client, NULL) == DLOCK_OK);
    CHECK(acquire(client, "k", NULL, &lease, NULL) == DLOCK_OK);
    CHECK(acquire(client, "k", &options, &other, NULL) == DLOCK_TIMEOUT); /* its engine runs now */
    CHECK(dlclose(library) == 0);
    pause_ms(100);
    CHECK(release(lease, NULL) == DLOCK_OK); /* still there */
    return report();
}
