/* Signals that stop the job. A handler tells the master at once, so that nothing need be interruptible: whatever the
 * launcher waits for (the master, a slow reader of its output), the job is being stopped meanwhile.
 *
 * SIGPIPE is one of them: a command whose output nobody reads dies of it, and so does its launcher. */
#include "launcher.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

enum { STOPPING_S = 5 }; /* for the master to stop the job and say so */

static const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE, SIGALRM};
enum { SIGNALS = sizeof signals / sizeof *signals };

static struct sigaction original[SIGNALS];
static sigset_t original_mask;
static volatile sig_atomic_t first; /* signal that came */
static int connection = -1;

int cancelled_by(void)
{
    return first;
}

/* Built by hand: snprintf is not for signal handlers. */
static void send_cancel(int signal)
{
    char frame[15] = {10, 0, 0, 0, 'K', 's', 'i', 'g', 'n', 'a', 'l', '='};
    frame[12] = (char)('0' + signal / 10);
    frame[13] = (char)('0' + signal % 10);
    (void)!send(connection, frame, sizeof frame, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void on_signal(int signal)
{
    int saved = errno;
    if (first) /* our patience is at an end, or theirs */
        end_by_signal(signal == SIGALRM ? first : signal);
    cancel_job(signal);
    errno = saved;
}

void cancel_job(int signal)
{
    first = signal;
    send_cancel(signal);
    alarm(STOPPING_S);
}

static sigset_t ours(void)
{
    sigset_t set;
    sigemptyset(&set);
    for (int i = 0; i < SIGNALS; i++)
        sigaddset(&set, signals[i]);
    return set;
}

/* Whoever started us with a signal ignored (nohup) means that of the command too. */
void cancel_on_signals(int master)
{
    connection = master;
    change_mask(SIG_BLOCK, NULL, &original_mask); /* first: musl's sigaction unblocks the signals that it keeps */
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART, .sa_mask = ours()};
    for (int i = 0; i < SIGNALS; i++) {
        sigaction(signals[i], NULL, &original[i]);
        if (original[i].sa_handler != SIG_IGN || signals[i] == SIGALRM)
            sigaction(signals[i], &action, NULL);
    }
    sigset_t alarms;
    sigemptyset(&alarms);
    sigaddset(&alarms, SIGALRM);
    change_mask(SIG_UNBLOCK, &alarms, NULL);
}

void stop_cancelling(void)
{
    sigset_t set = ours();
    change_mask(SIG_BLOCK, &set, NULL);
    if (first)
        end_by_signal(first);
    for (int i = 0; i < SIGNALS; i++)
        sigaction(signals[i], &original[i], NULL);
    change_mask(SIG_SETMASK, &original_mask, NULL); /* what came meanwhile now does as it would have done */
}

bool send_undisturbed(int master, const void *bytes, size_t length)
{
    sigset_t set = ours(), before;
    change_mask(SIG_BLOCK, &set, &before);
    bool sent = send_whole(master, bytes, length);
    change_mask(SIG_SETMASK, &before, NULL);
    return sent;
}
