/*
 * The little C that must be C, around calls of libremctl.
 *
 * Two things cannot be done from Python.  Signals have to be held back while libremctl reads and writes, because it
 * takes a hundred interrupted reads for the end of the file and writes without MSG_NOSIGNAL.  And the question "has the
 * next token arrived as a whole?" is asked for every token, so it has to be cheap.
 */

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>
#ifndef FIONREAD
#    include <sys/filio.h>
#endif

#include <remctl.h>

/* A token starts with one byte of flags and four of length, big-endian (remctl protocol, section 3). */
#define TOKEN_HEADER 5

/* What ready_output() answers beside the size of a token that is still on its way. */
#define TOKEN_EOF    (-1) /* the server has closed its side and nothing is left to read */
#define TOKEN_FAILED (-2) /* the socket failed: errno says why */

struct held {
    sigset_t before;
    int sigpipe_pending;
};

static int
sigpipe_pending(void)
{
    sigset_t pending;

    sigemptyset(&pending);
    sigpending(&pending);
    return sigismember(&pending, SIGPIPE) == 1;
}

/* Faults stay deliverable: a blocked SIGSEGV would kill the process before faulthandler could say where. */
static void
hold_signals(struct held *held)
{
    sigset_t all;

    held->sigpipe_pending = sigpipe_pending();
    sigfillset(&all);
    sigdelset(&all, SIGABRT);
    sigdelset(&all, SIGBUS);
    sigdelset(&all, SIGFPE);
    sigdelset(&all, SIGILL);
    sigdelset(&all, SIGSEGV);
    sigdelset(&all, SIGTRAP);
    pthread_sigmask(SIG_BLOCK, &all, &held->before);
}

/* A SIGPIPE that the call raised is taken off the thread before it can be delivered; errno is left as it was. */
static void
release_signals(const struct held *held)
{
    int saved = errno;

    if (!held->sigpipe_pending && sigpipe_pending()) {
        sigset_t sigpipe;
        int taken;

        sigemptyset(&sigpipe);
        sigaddset(&sigpipe, SIGPIPE);
        sigwait(&sigpipe, &taken);
    }
    pthread_sigmask(SIG_SETMASK, &held->before, NULL);
    errno = saved;
}

static int
quiet_open_fd(struct remctl *r, const char *host, int fd, const char *principal)
{
    struct held held;
    int okay;

    hold_signals(&held);
    okay = remctl_open_fd(r, host, fd, principal);
    release_signals(&held);
    return okay;
}

static int
quiet_commandv(struct remctl *r, const struct iovec *words, size_t count)
{
    struct held held;
    int okay;

    hold_signals(&held);
    okay = remctl_commandv(r, words, count);
    release_signals(&held);
    return okay;
}

static int
quiet_noop(struct remctl *r)
{
    struct held held;
    int okay;

    hold_signals(&held);
    okay = remctl_noop(r);
    release_signals(&held);
    return okay;
}

static struct remctl_output *
quiet_output(struct remctl *r)
{
    struct held held;
    struct remctl_output *output;

    hold_signals(&held);
    output = remctl_output(r);
    release_signals(&held);
    return output;
}

static void
quiet_close(struct remctl *r)
{
    struct held held;

    hold_signals(&held);
    remctl_close(r);
    release_signals(&held);
}

/*
 * Takes the next token if all of it is in the socket's buffer, so that libremctl's reads cannot block.  Answers 0 and
 * sets *output (NULL when libremctl refuses the token); else the size in bytes at which it is worth looking again, or
 * TOKEN_EOF, or TOKEN_FAILED.  Never blocks.
 */
static long
ready_output(struct remctl *r, int fd, struct remctl_output **output)
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
    if (ioctl(fd, FIONREAD, &available) < 0)
        return TOKEN_FAILED;
    if (available < size)
        return size;
    *output = remctl_output(r);
    return 0;
}
