/* Commands and tokens, sent and taken only where libremctl cannot block; see glue.h. */

#include "glue.h"

#include <errno.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#ifndef FIONREAD
#    include <sys/filio.h>
#endif

/* Copies the strings: libremctl keeps the pointers for as long as its struct lives.  NULL means no memory. */
struct session *
session_new(const char *host, const char *principal)
{
    struct session *session = calloc(1, sizeof(*session));

    if (session == NULL)
        return NULL;
    session->r = remctl_new();
    session->host = strdup(host);
    session->principal = principal != NULL ? strdup(principal) : NULL;
    if (session->r == NULL || session->host == NULL || (principal != NULL && session->principal == NULL)) {
        session_free(session);
        return NULL;
    }
    return session;
}

/* Takes leave of the server, if there is one, and frees everything. */
void
session_free(struct session *session)
{
    struct held held;

    if (session->r != NULL) {
        hold_signals(&held);
        remctl_close(session->r);
        release_signals(&held);
    }
    free(session->host);
    free(session->principal);
    free(session);
}

/* The words of a command, which lie one behind the other, as libremctl wants them.  NULL means no memory. */
struct iovec *
words_new(const char *data, const size_t *lengths, size_t count)
{
    struct iovec *words = calloc(count, sizeof(*words));
    size_t i;

    for (i = 0; i < count && words != NULL; i++) {
        words[i].iov_base = (char *) data;
        words[i].iov_len = lengths[i];
        data += lengths[i];
    }
    return words;
}

/*
 * Sends a command if it can be sent without blocking: the caller sees to it that it is small.  Answers SEND_DONE,
 * SEND_REFUSED when libremctl refuses, SEND_UNQUIET when the server has something to say although nothing was asked (or
 * has ended), or SEND_FULL when the socket takes no data now.
 */
int
session_send(struct session *session, int fd, const char *data, const size_t *lengths, size_t count)
{
    struct pollfd state = {fd, POLLIN | POLLRDHUP | POLLOUT, 0};
    struct iovec *words;
    struct held held;
    int okay;

    poll(&state, 1, 0);
    if (state.revents & ~POLLOUT)
        return SEND_UNQUIET;
    words = words_new(data, lengths, count);
    if (!(state.revents & POLLOUT) || words == NULL) {
        free(words);
        return SEND_FULL;
    }
    hold_signals(&held);
    okay = remctl_commandv(session->r, words, count);
    release_signals(&held);
    free(words);
    return okay ? SEND_DONE : SEND_REFUSED;
}

static void
set_option(int fd, int level, int name, int value)
{
    setsockopt(fd, level, name, &value, sizeof(value));
}

/*
 * Makes the system's buffer grow to what the largest token needs (Linux does so for the low-water mark): were it full
 * while the last token in it is still in parts, everything would wait until somebody has read the parts.  Leaves the
 * mark at a header, where wait_for_bytes() wants it.
 */
void
prepare_socket(int fd)
{
    set_option(fd, SOL_SOCKET, SO_RCVLOWAT, MAX_TOKEN);
    set_option(fd, SOL_SOCKET, SO_RCVLOWAT, TOKEN_HEADER);
}

/* The size in bytes of the next token if not all of it is in the socket's buffer, 0 if it is, or a TOKEN_* answer. */
static long
missing_token(int fd)
{
    unsigned char header[TOKEN_HEADER];
    int available = 0;
    ssize_t got;
    long size;

    do {
        got = recv(fd, header, sizeof(header), MSG_PEEK | MSG_DONTWAIT);
    } while (got < 0 && errno == EINTR);
    if (got == 0)
        return TOKEN_EOF;
    if (got < 0)
        return (errno == EAGAIN || errno == EWOULDBLOCK) ? TOKEN_HEADER : TOKEN_FAILED;
    if (got < TOKEN_HEADER)
        return TOKEN_HEADER;
    size = TOKEN_HEADER + ((long) header[1] << 24 | (long) header[2] << 16 | (long) header[3] << 8 | (long) header[4]);
    if (size > TOKEN_HEADER + MAX_TOKEN)
        return 0; /* libremctl refuses it by its header, without waiting for the rest */
    if (ioctl(fd, FIONREAD, &available) < 0)
        return TOKEN_FAILED;
    return available < size ? size : 0;
}

/*
 * Waits until the socket holds a token of that size, the server ends, or the time is over; answers as poll() does.
 * remctld sends a command's output and its status as two small segments with Nagle's algorithm on: unless this side
 * acknowledges the first one at once, the second one comes 40 ms later.
 */
static int
wait_for_bytes(int fd, long size, int milliseconds)
{
    struct pollfd state = {fd, POLLIN | POLLRDHUP, 0};
    int ready;

#ifdef TCP_QUICKACK
    set_option(fd, IPPROTO_TCP, TCP_QUICKACK, 1);
#endif
    if (size > TOKEN_HEADER)
        set_option(fd, SOL_SOCKET, SO_RCVLOWAT, size > INT_MAX ? INT_MAX : (int) size);
    ready = poll(&state, 1, milliseconds);
    if (size > TOKEN_HEADER)
        set_option(fd, SOL_SOCKET, SO_RCVLOWAT, TOKEN_HEADER);
    return ready;
}

/*
 * Takes the next token, once all of it is in the socket's buffer, so that libremctl's reads cannot block.  Waits for so
 * many milliseconds at the most, and no longer than until a signal comes.  Answers TOKEN_TAKEN and sets *output (NULL
 * when libremctl refuses the token), TOKEN_AGAIN when it is worth asking again, TOKEN_STUCK when a token does not come
 * together in the buffer (it is full or too small or cannot say, or the server has ended in mid-token), so that somebody
 * has to read what there is, TOKEN_EOF when the server has ended, or TOKEN_FAILED with errno.
 */
static int
next_token(struct session *session, int fd, int milliseconds, struct remctl_output **output)
{
    long awaited = missing_token(fd);
    long missing = awaited;

    if (awaited > 0) {
        int ready = wait_for_bytes(fd, awaited, milliseconds);

        if (ready < 0 && errno != EINTR)
            return TOKEN_FAILED;
        if (ready <= 0)
            return TOKEN_AGAIN;
        missing = missing_token(fd);
        if (missing > 0)
            return missing == awaited ? TOKEN_STUCK : TOKEN_AGAIN;
    }
    if (missing < 0)
        return (int) missing;
    *output = remctl_output(session->r);
    return TOKEN_TAKEN;
}

static int
append(struct pieces *pieces, const struct remctl_output *output)
{
    size_t size = pieces->size > 0 ? pieces->size : 4096;
    char *data;

    while (size - pieces->length < output->length)
        size *= 2;
    if (size != pieces->size) {
        data = realloc(pieces->data, size);
        if (data == NULL)
            return 0;
        pieces->data = data;
        pieces->size = size;
    }
    memcpy(pieces->data + pieces->length, output->data, output->length);
    pieces->length += output->length;
    return 1;
}

/*
 * Takes a token as next_token() does, and with it those behind it that are in the socket's buffer as a whole, `limit` in
 * all.  Output tokens go into the batch, which is empty before; the token that ends the answer is left in *last.
 */
int
session_take(
    struct session *session, int fd, int milliseconds, int limit, struct batch *batch, struct remctl_output **last)
{
    struct remctl_output *output = NULL;
    int outcome = next_token(session, fd, milliseconds, &output);

    if (outcome != TOKEN_TAKEN)
        return outcome;
    batch->data.length = 0;
    while (output != NULL && output->type == REMCTL_OUT_OUTPUT) {
        if (!append(&batch->data, output)) {
            errno = ENOMEM;
            return TOKEN_FAILED;
        }
        batch->streams[batch->count] = output->stream;
        batch->lengths[batch->count] = output->length;
        batch->count++;
        if (batch->count >= limit || batch->count >= BATCH_TOKENS || batch->data.length >= BATCH_SIZE
            || missing_token(fd) != 0)
            return TOKEN_TAKEN;
        output = remctl_output(session->r);
    }
    *last = output;
    batch->failed = output == NULL;
    return TOKEN_TAKEN;
}

void
batch_free(struct batch *batch)
{
    free(batch->data.data);
    memset(batch, 0, sizeof(*batch));
}

static long
now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

/*
 * Takes tokens as next_token() does, and adds the output among them to the answer, until there is another answer than
 * an output token to give, or the time is over, or COLLECT_SIZE bytes have come together.  Sets *last for TOKEN_TAKEN.
 */
int
session_collect(struct session *session, int fd, int milliseconds, struct answer *answer, struct remctl_output **last)
{
    long end = now() + milliseconds;
    int outcome;

    do {
        struct remctl_output *output = NULL;

        outcome = next_token(session, fd, milliseconds, &output);
        if (outcome != TOKEN_TAKEN)
            return outcome;
        if (output == NULL || output->type != REMCTL_OUT_OUTPUT) {
            *last = output;
            return TOKEN_TAKEN;
        }
        if (!append(output->stream == 2 ? &answer->err : &answer->out, output)) {
            errno = ENOMEM;
            return TOKEN_FAILED;
        }
        milliseconds = (int) (end - now());
    } while (milliseconds > 0 && answer->out.length + answer->err.length < COLLECT_SIZE);
    return TOKEN_AGAIN;
}

void
answer_free(struct answer *answer)
{
    free(answer->out.data);
    free(answer->err.data);
    memset(answer, 0, sizeof(*answer));
}
