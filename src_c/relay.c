/*
 * The bytes of an authentication: libremctl has one end of a socket pair, `ours` is the other, `server` is the TCP
 * connection.  On the way the flags of the server's tokens are looked at, since they say which protocol it speaks and
 * libremctl does not.
 */

#include "glue.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK         16384
#define FLAG_PROTOCOL 0x40 /* set on every token by a server of protocol 2 or later */

struct flow {
    unsigned char data[CHUNK];
    size_t begin, end;
};

struct relay {
    int ours, server;
    int server_ended;
    int malformed;
    int protocol;
    unsigned char header[TOKEN_HEADER]; /* of the server's token that is passing by */
    size_t header_seen;
    unsigned long payload_left;
    struct flow up, down;
};

struct relay *
relay_new(int ours, int server)
{
    struct relay *relay = calloc(1, sizeof(*relay));

    if (relay != NULL) {
        relay->ours = ours;
        relay->server = server;
        relay->protocol = 2;
    }
    return relay;
}

/* The protocol seen so far: 1, or 2 for "2 or later". */
int
relay_protocol(const struct relay *relay)
{
    return relay->protocol;
}

int
relay_server_ended(const struct relay *relay)
{
    return relay->server_ended;
}

/* Whether the server sent something that cannot be a token, as one of another protocol does. */
int
relay_malformed(const struct relay *relay)
{
    return relay->malformed;
}

/* Whether something of the server's was not taken by libremctl. */
int
relay_unread(const struct relay *relay)
{
    return relay->down.begin < relay->down.end;
}

void
relay_free(struct relay *relay)
{
    free(relay);
}

static void
inspect(struct relay *relay, const unsigned char *data, size_t size)
{
    while (size > 0) {
        size_t step = 1;

        if (relay->payload_left > 0) {
            step = relay->payload_left < size ? relay->payload_left : size;
            relay->payload_left -= step;
        } else {
            relay->header[relay->header_seen++] = *data;
            if (relay->header_seen == 1 && !(*data & FLAG_PROTOCOL))
                relay->protocol = 1;
            if (relay->header_seen == TOKEN_HEADER) {
                const unsigned char *h = relay->header;

                relay->payload_left = (unsigned long) h[1] << 24 | (unsigned long) h[2] << 16 | (unsigned long) h[3] << 8 | h[4];
                relay->header_seen = 0;
                if (relay->payload_left > MAX_TOKEN)
                    relay->malformed = 1;
            }
        }
        data += step;
        size -= step;
    }
}

/* Moves what can be moved without blocking.  Returns what recv() does; -1 for "nothing yet" alone. */
static ssize_t
fill(struct flow *flow, int fd)
{
    ssize_t got = recv(fd, flow->data, sizeof(flow->data), MSG_DONTWAIT);

    if (got < 0)
        return (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR) ? -1 : 0;
    flow->begin = 0;
    flow->end = (size_t) got;
    return got;
}

/* Returns 0 when the other side takes no more, and what there was to move is dropped. */
static int
drain(struct flow *flow, int fd)
{
    ssize_t sent = send(fd, flow->data + flow->begin, flow->end - flow->begin, MSG_DONTWAIT | MSG_NOSIGNAL);

    if (sent >= 0) {
        flow->begin += (size_t) sent;
        return 1;
    }
    if (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)
        return 1;
    flow->begin = flow->end;
    return 0;
}

static void
end_server(struct relay *relay)
{
    relay->server_ended = 1;
    shutdown(relay->ours, SHUT_WR);
}

/*
 * Waits for so many milliseconds at the most, or until a signal comes, and moves what has come.  Answers RELAY_DONE
 * when libremctl has closed or shut down its end, and all that it said is sent; else RELAY_AGAIN.
 */
int
relay_step(struct relay *relay, int milliseconds)
{
    struct pollfd state[2] = {{relay->ours, 0, 0}, {relay->server, 0, 0}};
    int up, down;

    if (relay->server_ended)
        relay->up.begin = relay->up.end; /* nobody is there to take it */
    up = relay->up.begin < relay->up.end;
    down = relay->down.begin < relay->down.end;
    state[0].events = (short) ((up ? 0 : POLLIN) | (down ? POLLOUT : 0));
    state[1].events = (short) ((down ? 0 : POLLIN) | (up ? POLLOUT : 0));
    if (state[0].events == 0)
        state[0].fd = -1; /* poll reports a closed end even unasked, over and over */
    if (state[1].events == 0 || relay->server_ended)
        state[1].fd = -1;
    if (poll(state, 2, milliseconds) <= 0)
        return RELAY_AGAIN;
    if (state[1].revents != 0) {
        if (up && !drain(&relay->up, relay->server))
            end_server(relay);
        else if (!down) {
            ssize_t got = fill(&relay->down, relay->server);

            if (got == 0)
                end_server(relay);
            else if (got > 0) {
                inspect(relay, relay->down.data, (size_t) got);
                drain(&relay->down, relay->ours);
            }
        }
    }
    if (state[0].revents != 0) {
        if (down)
            drain(&relay->down, relay->ours);
        if (!up) {
            ssize_t got = fill(&relay->up, relay->ours);

            if (got == 0)
                return RELAY_DONE;
            if (got > 0 && !relay->server_ended && !drain(&relay->up, relay->server))
                end_server(relay);
        }
    }
    return RELAY_AGAIN;
}
