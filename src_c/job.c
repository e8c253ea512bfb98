/*
 * Calls that block, each on a thread of its own; see glue.h.
 *
 * The caller waits for the descriptor `finished` in its own time, and leaves the job in any case: with session_leave(),
 * or job_leave() for a job without a session.  When it leaves before the end, the thread has the job and the session
 * from then on, and frees them when the call returns.  A session knows its job, so that no exception in Python can come
 * between the two.  The threads run no Python, so they need no interpreter that still exists; all signals are held back
 * in them.
 */

#include "glue.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct job_private {
    void (*call)(struct job *);
    struct session *session; /* NULL for job_resolve() */
    char *host;
    int family;
    int fd;
    unsigned short port;
    char *data;
    struct iovec *words; /* parts of data */
    pthread_mutex_t mutex;
    int returned;
    int left;
    int finishing; /* the write end of `finished` */
};

static void
job_free(struct job *job)
{
    if (job->finished >= 0)
        close(job->finished);
    pthread_mutex_destroy(&job->private->mutex);
    free(job->private->words);
    free(job->private->data);
    free(job->private->host);
    free(job->private);
    free(job->addresses);
    free(job);
}

static void *
run(void *argument)
{
    struct job *job = argument;
    struct job_private *private = job->private;
    int finishing = private->finishing;
    int left;

    private->call(job);
    pthread_mutex_lock(&private->mutex);
    private->returned = 1;
    left = private->left;
    pthread_mutex_unlock(&private->mutex);
    if (left) {
        if (private->session != NULL)
            session_free(private->session);
        job_free(job);
    }
    /* A byte, since a child that was forked meanwhile keeps the end from being seen. */
    (void) !write(finishing, "", 1);
    close(finishing);
    return NULL;
}

static struct job *
job_new(void (*call)(struct job *), struct session *session)
{
    struct job *job = calloc(1, sizeof(*job));

    if (job == NULL)
        return NULL;
    job->finished = -1;
    job->private = calloc(1, sizeof(*job->private));
    if (job->private == NULL || pthread_mutex_init(&job->private->mutex, NULL) != 0) {
        free(job->private);
        free(job);
        return NULL;
    }
    job->private->call = call;
    job->private->session = session;
    return job;
}

/* Starts the thread, and returns the job, or NULL with errno. */
static struct job *
start(struct job *job)
{
    struct held held;
    pthread_attr_t attributes;
    pthread_t thread;
    int ends[2];
    int code;

    if (pipe2(ends, O_CLOEXEC) < 0) {
        job_free(job);
        return NULL;
    }
    job->finished = ends[0];
    job->private->finishing = ends[1];
    if (job->private->session != NULL)
        job->private->session->job = job;
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    hold_signals(&held);
    code = pthread_create(&thread, &attributes, run, job);
    release_signals(&held);
    pthread_attr_destroy(&attributes);
    if (code != 0) {
        if (job->private->session != NULL)
            job->private->session->job = NULL;
        close(ends[1]);
        job_free(job);
        errno = code;
        return NULL;
    }
    return job;
}

/* Says whether the thread has the job now; else it has come to its end. */
int
job_leave(struct job *job)
{
    int returned;

    pthread_mutex_lock(&job->private->mutex);
    returned = job->private->returned;
    job->private->left = 1;
    pthread_mutex_unlock(&job->private->mutex);
    if (returned)
        job_free(job);
    return !returned;
}

/*
 * Leaves the session's job, if there is one.  Says whether the thread has the session now, and will free it; else the
 * caller still has it.
 */
int
session_leave(struct session *session)
{
    struct job *job = session->job;

    session->job = NULL;
    return job != NULL && job_leave(job);
}

/* Authenticates over one end of a socket pair; in success too the other end then sees an end. */
static void
call_open(struct job *job)
{
    struct session *session = job->private->session;

    job->okay = remctl_open_fd(session->r, session->host, job->private->fd, session->principal);
    if (job->okay)
        shutdown(job->private->fd, SHUT_WR);
}

/* Connects and authenticates as libremctl does it alone. */
static void
call_connect(struct job *job)
{
    struct session *session = job->private->session;

    job->okay = remctl_open(session->r, session->host, job->private->port, session->principal);
}

struct job *
job_connect(struct session *session, unsigned short port)
{
    struct job *job = job_new(call_connect, session);

    if (job == NULL)
        return NULL;
    job->private->port = port;
    return start(job);
}

/* The descriptor is the session's from here on: closed when this fails. */
struct job *
job_open(struct session *session, int fd)
{
    struct job *job = job_new(call_open, session);

    if (job != NULL) {
        job->private->fd = fd;
        job = start(job);
    }
    if (job == NULL)
        close(fd);
    return job;
}

static void
call_send(struct job *job)
{
    job->okay = remctl_commandv(job->private->session->r, job->private->words, job->count);
}

/* Copies the words, which the caller may free once it has left. */
struct job *
job_send(struct session *session, const char *data, const size_t *lengths, size_t count)
{
    struct job *job = job_new(call_send, session);
    size_t i, size = 0;

    if (job == NULL)
        return NULL;
    for (i = 0; i < count; i++)
        size += lengths[i];
    job->count = count;
    job->private->data = malloc(size + 1);
    if (job->private->data != NULL) {
        memcpy(job->private->data, data, size);
        job->private->words = words_new(job->private->data, lengths, count);
    }
    if (job->private->words == NULL) {
        job_free(job);
        errno = ENOMEM;
        return NULL;
    }
    return start(job);
}

static void
call_noop(struct job *job)
{
    job->okay = remctl_noop(job->private->session->r);
}

struct job *
job_noop(struct session *session)
{
    struct job *job = job_new(call_noop, session);

    return job == NULL ? NULL : start(job);
}

static void
call_output(struct job *job)
{
    job->output = remctl_output(job->private->session->r);
    job->okay = job->output != NULL;
}

struct job *
job_output(struct session *session)
{
    struct job *job = job_new(call_output, session);

    return job == NULL ? NULL : start(job);
}

static void
call_resolve(struct job *job)
{
    struct addrinfo hints, *found = NULL, *ai;

    memset(&hints, 0, sizeof(hints));
    hints.ai_family = job->private->family;
    hints.ai_socktype = SOCK_STREAM;
    job->okay = getaddrinfo(job->private->host, NULL, &hints, &found);
    if (job->okay != 0)
        return;
    for (ai = found; ai != NULL; ai = ai->ai_next)
        job->count++;
    job->addresses = calloc(job->count, sizeof(*job->addresses));
    job->count = 0;
    for (ai = found; ai != NULL && job->addresses != NULL; ai = ai->ai_next) {
        struct address *address = &job->addresses[job->count];

        address->family = ai->ai_family;
        if (getnameinfo(ai->ai_addr, ai->ai_addrlen, address->text, sizeof(address->text), NULL, 0, NI_NUMERICHOST)
            == 0)
            job->count++;
    }
    if (job->addresses == NULL)
        job->okay = EAI_MEMORY;
    freeaddrinfo(found);
}

struct job *
job_resolve(const char *host, int family)
{
    struct job *job = job_new(call_resolve, NULL);

    if (job == NULL)
        return NULL;
    job->private->host = strdup(host);
    job->private->family = family;
    if (job->private->host == NULL) {
        job_free(job);
        return NULL;
    }
    return start(job);
}
