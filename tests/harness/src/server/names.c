// A host name with addresses that a test chooses. This library is preloaded. It answers for the name in
// DLOCK_TEST_NAME, as `name=127.0.0.2,127.0.0.1`, in that order. The C library answers for every other name.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int resolve(const char *, const char *, const struct addrinfo *, struct addrinfo **);

int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **result) {
    resolve *real = (resolve *)dlsym(RTLD_NEXT, "getaddrinfo");
    const char *given = getenv("DLOCK_TEST_NAME");
    const char *list = given ? strchr(given, '=') : NULL;
    size_t length = list ? (size_t)(list - given) : 0;
    if (!node || !list || strlen(node) != length || strncmp(node, given, length)) {
        return real(node, service, hints, result);
    }
    struct addrinfo **next = result;
    char text[256];
    snprintf(text, sizeof text, "%s", list + 1);
    char *rest = NULL;
    for (char *one = strtok_r(text, ",", &rest); one; one = strtok_r(NULL, ",", &rest)) {
        // Each result is one piece of memory of the C library, which frees it as a list.
        int failed = real(one, service, hints, next);
        if (failed) return failed;
        while (*next) next = &(*next)->ai_next;
    }
    return 0;
}
