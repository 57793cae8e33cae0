/* The raw baseline of Redis: the bare two commands over a blocking socket. Loaded by raw.py. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define DELETE "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) else return 0 end"

struct conn {
    int fd;
    char take[256], give[256], reply[256];
};

/* Sends a command whose reply is so many lines; keeps the reply. */
static int ask(struct conn *c, const char *command, int lines)
{
    size_t have = 0, length = strlen(command);
    if (send(c->fd, command, length, 0) != (ssize_t)length)
        return -1;
    for (;;) {
        ssize_t got = recv(c->fd, c->reply + have, sizeof c->reply - 1 - have, 0);
        if (got <= 0)
            return -1;
        have += (size_t)got;
        c->reply[have] = 0;
        int seen = 0;
        for (char *at = c->reply; (at = strchr(at, '\n')); at++)
            seen++;
        if (seen >= lines)
            return 0;
    }
}

/* A connection that takes and gives this key; null where there is no server. */
void *redis_open(const char *host, int port, const char *key)
{
    struct conn *c = calloc(1, sizeof *c);
    struct sockaddr_in place = {.sin_family = AF_INET, .sin_port = htons((unsigned short)port)};
    char load[256];
    int on = 1;
    inet_pton(AF_INET, host, &place.sin_addr);
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    snprintf(load, sizeof load, "*3\r\n$6\r\nSCRIPT\r\n$4\r\nLOAD\r\n$%zu\r\n%s\r\n", strlen(DELETE), DELETE);
    if (connect(c->fd, (struct sockaddr *)&place, sizeof place) || ask(c, load, 2)) {
        close(c->fd);
        free(c);
        return 0;
    }
    snprintf(c->take, sizeof c->take,
             "*6\r\n$3\r\nSET\r\n$%zu\r\n%s\r\n$9\r\nraw-token\r\n$2\r\nNX\r\n$2\r\nPX\r\n$5\r\n30000\r\n", strlen(key), key);
    snprintf(c->give, sizeof c->give, "*5\r\n$7\r\nEVALSHA\r\n$40\r\n%.40s\r\n$1\r\n1\r\n$%zu\r\n%s\r\n$9\r\nraw-token\r\n",
             strchr(c->reply, '\n') + 1, strlen(key), key);
    return c;
}

void redis_close(void *conn)
{
    struct conn *c = conn;
    close(c->fd);
    free(c);
}

/* 0: taken. */
int redis_take(void *conn)
{
    struct conn *c = conn;
    return ask(c, c->take, 1) || c->reply[0] != '+';
}

/* 0: it was ours, and is given back. */
int redis_give(void *conn)
{
    struct conn *c = conn;
    return ask(c, c->give, 1) || strncmp(c->reply, ":1", 2);
}

/* Seconds for n pairs of taking and giving; negative when one failed. */
double redis_pairs(void *conn, long n)
{
    struct timespec from, to;
    clock_gettime(CLOCK_MONOTONIC, &from);
    for (long i = 0; i < n; i++) {
        if (redis_take(conn) || redis_give(conn))
            return -1;
    }
    clock_gettime(CLOCK_MONOTONIC, &to);
    return (double)(to.tv_sec - from.tv_sec) + (double)(to.tv_nsec - from.tv_nsec) / 1e9;
}
