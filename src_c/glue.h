/*
 * The little C that must be C, around calls of libremctl and libc.
 *
 *     signals.c   libremctl takes interrupted reads for the end of the file and writes without MSG_NOSIGNAL
 *     session.c   what is done for every command and token, so that it is cheap and cannot block
 *     job.c       calls that block, on threads that can be left behind
 *     relay.c     the bytes of an authentication, carried by this side so that it can look at them and stop
 *     regex.c     regular expressions that mean what they mean to remctld
 *     group.c     the groups of this machine, and whether they could be asked for
 */

#ifndef GLUE_H
#define GLUE_H 1

#ifndef _GNU_SOURCE
#    define _GNU_SOURCE 1 /* POLLRDHUP, pipe2 */
#endif

#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

#include <remctl.h>

#ifndef POLLRDHUP
#    define POLLRDHUP 0
#endif
#ifndef MSG_NOSIGNAL
#    define MSG_NOSIGNAL 0
#endif

/* A token starts with one byte of flags and four of length, big-endian (remctl's protocol.xml, "Network Protocol"). */
#define TOKEN_HEADER 5

/* Bytes of a token's payload: the limit of libremctl and remctld, a header less than the protocol's. */
#define MAX_TOKEN 1048576

/* Holds back the signals of this thread, but for those of faults. */
struct held {
    sigset_t before;
    int sigpipe_pending;
};
void hold_signals(struct held *);
void release_signals(const struct held *);

/* A libremctl struct with the strings that it points to; fresh from session_new(), it serves one connection. */
struct session {
    struct remctl *r;
    char *host;
    char *principal; /* NULL for the default */
    struct job *job; /* at work, or at its end and not yet left; NULL else */
};
struct session *session_new(const char *host, const char *principal);
void session_free(struct session *);

/* What session_send() answers. */
#define SEND_REFUSED 0
#define SEND_DONE    1
#define SEND_UNQUIET 2
#define SEND_FULL    3
int session_send(struct session *, int fd, const char *data, const size_t *lengths, size_t count);
struct iovec *words_new(const char *data, const size_t *lengths, size_t count);

/* Output that came together. */
struct pieces {
    char *data;
    size_t length, size;
};

/* Output tokens, their data one behind the other; then nothing, or the token that libremctl refused. */
#define BATCH_TOKENS 64
#define BATCH_SIZE   262144
struct batch {
    struct pieces data;
    int count;
    int streams[BATCH_TOKENS];
    size_t lengths[BATCH_TOKENS];
    int failed;
};

/* What session_take() and session_collect() answer. */
#define TOKEN_TAKEN  0
#define TOKEN_AGAIN  1
#define TOKEN_STUCK  2
#define TOKEN_EOF    (-1)
#define TOKEN_FAILED (-2)
void prepare_socket(int fd);
int session_take(struct session *, int fd, int milliseconds, int limit, struct batch *, struct remctl_output **);
void batch_free(struct batch *);

/* The output of an answer, collected without regard to its tokens. */
#define COLLECT_SIZE 1048576
struct answer {
    struct pieces out, err;
};
int session_collect(struct session *, int fd, int milliseconds, struct answer *, struct remctl_output **);
void answer_free(struct answer *);

/* A blocking call on a thread; descriptor `finished` is readable once it has returned.  A session has one at a time. */
struct address {
    int family;
    char text[64]; /* numeric, with the scope of an IPv6 address */
};
struct job {
    int finished;
    int okay;                     /* what the call answered; of job_resolve() getaddrinfo's number */
    struct remctl_output *output; /* of job_output() */
    struct address *addresses;    /* of job_resolve() */
    size_t count;
    struct job_private *private;
};
struct job *job_open(struct session *, int fd);
struct job *job_connect(struct session *, unsigned short port);
struct job *job_send(struct session *, const char *data, const size_t *lengths, size_t count);
struct job *job_noop(struct session *);
struct job *job_output(struct session *);
struct job *job_resolve(const char *host, int family);
int job_leave(struct job *);
int session_leave(struct session *);

/* Two descriptors, and what is on its way between them. */
#define RELAY_DONE  0
#define RELAY_AGAIN 1
struct relay;
struct relay *relay_new(int ours, int server);
int relay_step(struct relay *, int milliseconds);
int relay_protocol(const struct relay *);
int relay_server_ended(const struct relay *);
int relay_malformed(const struct relay *);
int relay_unread(const struct relay *);
void relay_free(struct relay *);

/* 1 if the pattern matches somewhere in the text, 0 if nowhere, -1 if that cannot be told: message then says why. */
int regex_matches(const char *pattern, const char *text, char *message, size_t size);

/* What group_has() answers, besides a negated errno. */
#define GROUP_WITHOUT 0
#define GROUP_WITH    1
#define GROUP_UNKNOWN 2
int group_has(const char *name, const char *user);

#endif
