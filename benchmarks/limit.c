/*
 * The limit: what a C program on the same libremctl reaches when it acknowledges at once (TCP_QUICKACK).
 *
 *     limit session|oneshot|stream COUNT HOST PORT PRINCIPAL
 *
 * Runs `example hello` COUNT times over one session or one session each, or `example bytes COUNT` once, and prints the
 * seconds it took.
 */

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include <remctl.h>

static const char *host, *port, *principal;
static int fd;

static void
fail(const char *what)
{
    fprintf(stderr, "limit: %s\n", what);
    exit(1);
}

static struct remctl *
open_session(void)
{
    struct addrinfo hints, *found, *ai;
    struct remctl *r = remctl_new();
    int on = 1;

    memset(&hints, 0, sizeof(hints));
    hints.ai_socktype = SOCK_STREAM;
    if (getaddrinfo(host, port, &hints, &found) != 0)
        fail("unknown host");
    for (ai = found; ai != NULL; ai = ai->ai_next) {
        fd = socket(ai->ai_family, SOCK_STREAM, 0);
        if (fd >= 0 && connect(fd, ai->ai_addr, ai->ai_addrlen) == 0)
            break;
        close(fd);
    }
    if (ai == NULL)
        fail("cannot connect");
    freeaddrinfo(found);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    if (r == NULL || !remctl_open_fd(r, host, fd, principal))
        fail(remctl_error(r));
    return r;
}

static size_t
run(struct remctl *r, const char *subcommand, const char *argument)
{
    struct iovec words[3] = {{"example", 7},
                             {(char *) subcommand, strlen(subcommand)},
                             {(char *) argument, strlen(argument)}};
    struct remctl_output *output;
    size_t total = 0;
    int on = 1;

    if (!remctl_commandv(r, words, argument[0] == '\0' ? 2 : 3))
        fail(remctl_error(r));
    setsockopt(fd, IPPROTO_TCP, TCP_QUICKACK, &on, sizeof(on));
    do {
        output = remctl_output(r);
        if (output == NULL || output->type == REMCTL_OUT_ERROR)
            fail("no answer");
        total += output->type == REMCTL_OUT_OUTPUT ? output->length : 0;
    } while (output->type == REMCTL_OUT_OUTPUT);
    return total;
}

int
main(int argc, char **argv)
{
    struct timespec begin, end;
    struct remctl *r = NULL;
    int oneshot, stream, i, count;

    if (argc != 6)
        fail("usage: limit session|oneshot|stream COUNT HOST PORT PRINCIPAL");
    oneshot = strcmp(argv[1], "oneshot") == 0;
    stream = strcmp(argv[1], "stream") == 0;
    count = atoi(argv[2]);
    host = argv[3];
    port = argv[4];
    principal = argv[5];
    if (!oneshot)
        r = open_session();
    clock_gettime(CLOCK_MONOTONIC, &begin);
    if (stream && run(r, "bytes", argv[2]) != (size_t) count)
        fail("bytes are missing");
    for (i = 0; !stream && i < count; i++) {
        if (oneshot)
            r = open_session();
        if (run(r, "hello", "") != 12)
            fail("wrong answer");
        if (oneshot)
            remctl_close(r);
    }
    clock_gettime(CLOCK_MONOTONIC, &end);
    if (!oneshot)
        remctl_close(r);
    printf("%.9f\n", (double) (end.tv_sec - begin.tv_sec) + 1e-9 * (double) (end.tv_nsec - begin.tv_nsec));
    return 0;
}
