/* Holding signals back during calls of libremctl; see glue.h. */

#include "glue.h"

#include <errno.h>
#include <pthread.h>

static int
sigpipe_pending(void)
{
    sigset_t pending;

    sigemptyset(&pending);
    sigpending(&pending);
    return sigismember(&pending, SIGPIPE) == 1;
}

/* Faults stay deliverable: a blocked SIGSEGV would kill the process before faulthandler could say where. */
void
hold_signals(struct held *held)
{
    static const int faults[] = {SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGTRAP};
    sigset_t signals;
    size_t i;

    held->sigpipe_pending = sigpipe_pending();
    sigfillset(&signals);
    for (i = 0; i < sizeof(faults) / sizeof(faults[0]); i++)
        sigdelset(&signals, faults[i]);
    pthread_sigmask(SIG_BLOCK, &signals, &held->before);
}

/* A SIGPIPE that a call raised meanwhile is taken off the thread before it can be delivered; errno stays as it is. */
void
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
