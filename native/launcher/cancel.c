/* Turn the signals that mean "stop the job" into a cancel for the master, and SIGWINCH into the new
 * size of the terminal's window.
 *
 * The handler sends the cancel itself, so no wait of the launcher has to be interruptible. The job
 * is stopped even if the launcher waits for the master, or for a slow reader of its output.
 *
 * SIGPIPE is one of these signals. A command whose output nobody reads dies of it, and its launcher
 * dies of it too. */
#include "launcher.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

/* The time in which the master must stop the job and answer; then the launcher ends alone. A build
 * ends within 2 s of Ctrl-C, whatever does not answer, and the build tool needs a part of that. */
enum { STOPPING_MS = 1500 };

static const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE, SIGALRM};
enum { SIGNALS = sizeof signals / sizeof *signals };

static struct sigaction original[SIGNALS], original_window;
static sigset_t original_mask;
static volatile sig_atomic_t first; /* the first signal that came; 0: none */
static volatile sig_atomic_t is_sending; /* a frame is half sent */
static volatile sig_atomic_t is_cancel_due, is_window_due; /* they wait for its end */
static int connection = -1;

int cancelled_by(void)
{
    return first;
}

/* Send the frame `K`. The bytes are put together by hand, because snprintf is not safe in a signal
 * handler. */
static void send_cancel(int signal)
{
    char frame[15] = {10, 0, 0, 0, 'K', 's', 'i', 'g', 'n', 'a', 'l', '='};
    frame[12] = (char)('0' + signal / 10);
    frame[13] = (char)('0' + signal % 10);
    (void)!send(connection, frame, sizeof frame, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* Send the frame `W`, also put together by hand. */
static void send_window(void)
{
    enum { KEY_BYTES = 7, HEADER_BYTES = 5 };
    char frame[HEADER_BYTES + KEY_BYTES + WINDOW_BYTES] = {0, 0, 0, 0, 'W', 'w', 'i', 'n', 'd', 'o', 'w', '='};
    size_t length = KEY_BYTES + write_window(frame + HEADER_BYTES + KEY_BYTES);
    frame[0] = (char)length;
    (void)!send(connection, frame, HEADER_BYTES + length, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* Send the new size of the window. */
static void on_window(int signal)
{
    (void)signal;
    int saved = errno;
    if (is_sending)
        is_window_due = 1;
    else if (is_window_new())
        send_window();
    errno = saved;
}

/* Cancel the job at the first signal. End this process at the next one. */
static void on_signal(int signal)
{
    int saved = errno;
    if (first) /* a second signal, or the alarm: do not wait any longer */
        end_by_signal(signal == SIGALRM ? first : signal);
    cancel_job(signal);
    errno = saved;
}

void cancel_job(int signal)
{
    first = signal;
    if (is_sending)
        is_cancel_due = 1;
    else
        send_cancel(signal);
    const struct itimerval patience = {.it_value = {STOPPING_MS / 1000, STOPPING_MS % 1000 * 1000}};
    setitimer(ITIMER_REAL, &patience, NULL);
}

/* Return the set of the signals that cancel. */
static sigset_t ours(void)
{
    sigset_t set;
    sigemptyset(&set);
    for (int i = 0; i < SIGNALS; i++)
        sigaddset(&set, signals[i]);
    return set;
}

/* A signal that is ignored at the start (nohup) stays ignored, because that is also meant for the
 * command. */
void cancel_on_signals(int master)
{
    connection = master;
    change_mask(SIG_BLOCK, NULL, &original_mask); /* first: musl's sigaction unblocks signals of its own */
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART, .sa_mask = ours()};
    for (int i = 0; i < SIGNALS; i++) {
        sigaction(signals[i], NULL, &original[i]);
        if (original[i].sa_handler != SIG_IGN || signals[i] == SIGALRM)
            sigaction(signals[i], &action, NULL);
    }
    action.sa_handler = on_window;
    if (has_terminal()) {
        sigaction(SIGWINCH, &action, &original_window);
        on_window(SIGWINCH); /* the signal may have come before */
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
    if (has_terminal())
        sigaction(SIGWINCH, &original_window, NULL);
    change_mask(SIG_SETMASK, &original_mask, NULL); /* a signal that came meanwhile now acts as usual */
}

bool send_undisturbed(int master, const void *bytes, size_t length)
{
    const char *at = bytes;
    bool is_there = true;
    is_sending = 1;
    while (length > 0 && is_there) {
        ssize_t n = send(master, at, length, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN)
            note_silence(false);
        is_there = n >= 0 || errno == EINTR || errno == EAGAIN;
        at += n > 0 ? n : 0;
        length -= n > 0 ? (size_t)n : 0;
    }
    is_sending = 0;
    if (is_window_due) {
        is_window_due = 0;
        send_window();
    }
    if (is_cancel_due) {
        is_cancel_due = 0;
        send_cancel(first);
    }
    return is_there;
}
