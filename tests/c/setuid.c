/* A setuid program, started by somebody else: neither its variables nor the files in its directory are its own, so nothing of
 * them decides where it locks. Needs root, which makes a copy of this program setuid and starts it as another user. */
#include "check.h"

#include <grp.h>
#include <sys/auxv.h>
#include <sys/stat.h>

enum { SOMEBODY = 65534 };

static char folder[] = "/tmp/dlock-setuid-XXXXXX";

static const char *in_folder(const char *name)
{
    static char path[4][256];
    static int next;
    char *one = path[next++ % 4];
    snprintf(one, sizeof path[0], "%s/%s", folder, name);
    return one;
}

static void write_file(const char *name, const char *text)
{
    FILE *file = fopen(in_folder(name), "w");
    CHECK(file && fputs(text, file) >= 0 && fclose(file) == 0);
    CHECK(chmod(in_folder(name), 0644) == 0);
}

static int copy_setuid(const char *name)
{
    char block[1 << 16];
    size_t got;
    FILE *from = fopen("/proc/self/exe", "r"), *to = fopen(in_folder(name), "w");
    if (!CHECK(from && to)) return 0;
    while ((got = fread(block, 1, sizeof block, from)) > 0)
        CHECK(fwrite(block, 1, got, to) == got);
    fclose(from);
    return CHECK(fclose(to) == 0 && chown(in_folder(name), 0, 0) == 0 && chmod(in_folder(name), 04755) == 0);
}

/* access(2) would ask for whoever started the program. */
static int is_there(const char *path)
{
    struct stat found;
    return stat(path, &found) == 0;
}

/* In the folder of somebody who has thought of everything. */
static int privileged(void)
{
    dlock_client *client = NULL, *named = NULL, *service = NULL;
    dlock_lease *lease = NULL;
    dlock_error *err = NULL;
    CHECK(getauxval(AT_SECURE) != 0 && geteuid() == 0 && getuid() == SOMEBODY);
    CHECK(dlock_connect(NULL, &client, &err) == DLOCK_OK);
    if (err) fprintf(stderr, "%s\n", dlock_error_message(err));
    CHECK(strcmp(dlock_backend(client), "file") == 0);
    CHECK(dlock_acquire(client, "dlock-setuid", NULL, &lease, &err) == DLOCK_OK);
    if (err) fprintf(stderr, "%s\n", dlock_error_message(err));
    CHECK(!is_there("theirs"));
    CHECK(is_there("/run/lock/dlock-0/dlock-setuid.lock") || is_there("/var/tmp/dlock-0/dlock-setuid.lock"));
    CHECK(dlock_release(lease, &err) == DLOCK_OK);
    CHECK(dlock_connect_service("etcd", &service, &err) == DLOCK_INVALID);
    /* What the program itself names is its own. */
    CHECK(dlock_connect_config("named.yaml", &named, &err) == DLOCK_OK && strcmp(dlock_backend(named), "etcd") == 0);
    dlock_lease_free(lease);
    dlock_client_free(client);
    dlock_client_free(named);
    dlock_error_free(err);
    return report();
}

int main(int argc, char **argv)
{
    int status = -1;
    pid_t child;
    if (argc == 2 && strcmp(argv[1], "privileged") == 0) return privileged();
    if (!CHECK(mkdtemp(folder) && chmod(folder, 0755) == 0) || !copy_setuid("program")) return report();
    write_file("config.yaml", "redis: {enabled: true}\n");
    write_file("named.yaml", "etcd: {enabled: true}\n");
    child = fork();
    if (child == 0) {
        char theirs[256];
        snprintf(theirs, sizeof theirs, "%s/theirs", folder);
        setenv("DLOCK_FILE_DIR", theirs, 1);
        setenv("DLOCK_CONFIG", "named.yaml", 1);
        setenv("DLOCK_REDIS_ENABLED", "true", 1);
        setenv("DLOCK_DEFAULT", "memory", 1);
        if (chdir(folder) == 0 && setgroups(0, NULL) == 0 && setgid(SOMEBODY) == 0 && setuid(SOMEBODY) == 0)
            execl("./program", "program", "privileged", (char *)NULL);
        _exit(99);
    }
    waitpid(child, &status, 0);
    unlink(in_folder("config.yaml"));
    unlink(in_folder("named.yaml"));
    unlink(in_folder("program"));
    rmdir(folder);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    return report();
}
