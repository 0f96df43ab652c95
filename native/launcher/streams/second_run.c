/* Run the command on this machine after a remote run of it has shown output.
 *
 * Output that was shown cannot be taken back. Therefore the command writes to pipes, and the
 * launcher does not show again what the command repeats. If the command writes something else, no
 * reader of a file or a pipe can be told: the launcher shows nothing more, waits for the command,
 * and exits with EXIT_LOST. A terminal shows all of the second run after a line, and the command
 * writes to it itself: it may write something else to a pipe. */
#include "../launcher.h"
#include "../../shared/fields.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/wait.h>

enum { STREAMS = 2, PIECE_BYTES = 64 * 1024 };

struct stream {
    struct shown shown; /* output of the remote run */
    struct shown seen;  /* output of this run that is compared with it */
    bool is_silent; /* no more output is shown */
    size_t room;    /* bytes that may still be read in this turn */
    int pipe;       /* -1: at its end, or the command has the launcher's own descriptor */
};

struct second_run {
    const struct command *command;
    struct stream streams[STREAMS]; /* stdout, stderr */
    bool is_merged;                 /* stderr is the same file as stdout */
    bool differs;                   /* a reader has other output than the command wrote */
    bool is_unread;                 /* the reader has gone */
    bool is_broken;                 /* the output could not be written */
};

/* -- signals ------------------------------------------------------------------------------------------------------- */

static volatile pid_t child;
static const int forwarded[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGALRM, SIGUSR1, SIGUSR2};
enum { FORWARDED = sizeof forwarded / sizeof *forwarded };
static struct sigaction original[FORWARDED + 2];

/* Pass a signal on. The command has its own copy of a signal that the terminal sends. */
static void forward_signal(int signal, siginfo_t *info, void *context)
{
    (void)context;
    if (info->si_code != SI_KERNEL && child > 0)
        kill(child, signal);
}

static void ignore_signal(int signal)
{
    (void)signal; /* SIGCHLD needs a handler: ignoring it would take the exit status away */
}

static void watch_signals(void)
{
    struct sigaction forward = {.sa_sigaction = forward_signal, .sa_flags = SA_SIGINFO | SA_RESTART};
    struct sigaction wake = {.sa_handler = ignore_signal}, ignore = {.sa_handler = SIG_IGN};
    for (int i = 0; i < FORWARDED; i++) {
        sigaction(forwarded[i], NULL, &original[i]);
        if (original[i].sa_handler != SIG_IGN)
            sigaction(forwarded[i], &forward, NULL);
    }
    sigaction(SIGCHLD, &wake, &original[FORWARDED]);
    sigaction(SIGPIPE, &ignore, &original[FORWARDED + 1]);
}

static void restore_signals(void)
{
    for (int i = 0; i < FORWARDED; i++)
        sigaction(forwarded[i], &original[i], NULL);
    sigaction(SIGCHLD, &original[FORWARDED], NULL);
    sigaction(SIGPIPE, &original[FORWARDED + 1], NULL);
}

/* -- the command's output ------------------------------------------------------------------------------------------ */

static int fd_of(const struct second_run *run, const struct stream *stream)
{
    return stream == &run->streams[0] ? STDOUT_FILENO : STDERR_FILENO;
}

static void show(struct second_run *run, struct stream *stream, const char *bytes, size_t length)
{
    if (stream->is_silent || length == 0 || output_write(fd_of(run, stream), bytes, length))
        return;
    stream->is_silent = true;
    if (errno == EPIPE && original[FORWARDED + 1].sa_handler != SIG_IGN) {
        run->is_unread = true;
    } else {
        run->is_broken = true;
        dprintf(STDERR_FILENO, "termite: cannot write the output of %s: %s\n", run->command->argv[0],
                failure_text(errno));
    }
    close(stream->pipe); /* the command dies of SIGPIPE, as it does without termite */
    stream->pipe = -1;
}

static void meet_difference(struct second_run *run, struct stream *stream)
{
    stream->shown.length = stream->seen.length; /* report a difference only once */
    if (!run->differs)
        dprintf(STDERR_FILENO,
                "termite: the command ran again and printed something else, so that its output would be of two runs: "
                "%s\n",
                run->command->argv[0]);
    run->differs = true;
    for (int i = 0; i < STREAMS; i++)
        run->streams[i].is_silent = true;
}

static void take_piece(struct second_run *run, struct stream *stream, const char *bytes, size_t length)
{
    unsigned long long left = stream->shown.length - stream->seen.length;
    size_t repeated = left < length ? (size_t)left : length;
    shown_add(&stream->seen, bytes, repeated);
    if (repeated > 0 && stream->seen.length == stream->shown.length && stream->seen.hash != stream->shown.hash)
        meet_difference(run, stream);
    show(run, stream, bytes + repeated, length - repeated);
}

/* Read once from the pipe. Return false if nothing is there now, or at the end. */
static bool read_piece(struct second_run *run, struct stream *stream)
{
    static char piece[PIECE_BYTES];
    if (stream->pipe < 0)
        return false;
    ssize_t n = read(stream->pipe, piece, stream->room);
    if (n < 0)
        return errno == EINTR;
    stream->room -= (size_t)n;
    if (n == 0) {
        close(stream->pipe);
        stream->pipe = -1;
        return false;
    }
    take_piece(run, stream, piece, (size_t)n);
    return true;
}

/* Read what is there, but no more than a pipe holds, because a process that the command has left
 * behind may write without end. Return whether a pipe is still open. */
static bool read_some(struct second_run *run)
{
    bool is_open = false;
    for (int i = 0; i < STREAMS; i++) {
        struct stream *stream = &run->streams[i];
        for (stream->room = PIECE_BYTES; stream->room > 0 && read_piece(run, stream);)
            ;
        is_open = is_open || stream->pipe >= 0;
    }
    return is_open;
}

static void wait_for_more(const struct second_run *run, const sigset_t *mask)
{
    struct pollfd fds[STREAMS];
    for (int i = 0; i < STREAMS; i++)
        fds[i] = (struct pollfd){.fd = run->streams[i].pipe, .events = POLLIN};
    ppoll(fds, STREAMS, NULL, mask);
}

/* -- the command --------------------------------------------------------------------------------------------------- */

/* Open a pipe and set *end to the command's end of it. If the stream has shown nothing, set *end to
 * -1: the command gets the launcher's own descriptor. Return false, with errno, on failure. */
static bool open_pipe(struct stream *stream, int *end)
{
    int ends[2];
    stream->pipe = *end = -1;
    if (stream->shown.length == 0)
        return true;
    if (pipe2(ends, O_CLOEXEC) != 0)
        return false;
    fcntl(ends[0], F_SETFL, O_NONBLOCK);
    stream->pipe = ends[0];
    *end = ends[1];
    return true;
}

static _Noreturn void become_command(const struct second_run *run, const struct local_run *how, const int ends[STREAMS],
                                     const sigset_t *mask, pid_t launcher)
{
    for (int i = 0; i < STREAMS; i++)
        if (ends[i] >= 0)
            dup2(ends[i], i + 1);
    if (run->is_merged)
        dup2(STDOUT_FILENO, STDERR_FILENO);
    restore_signals();
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* a kill of the launcher means the command */
    if (getppid() != launcher)
        _exit(EXIT_LOST);
    change_mask(SIG_SETMASK, mask, NULL);
    exec_command(run->command, how);
}

/* Leave a reader behind if a process that the command has left behind can still write. The reader
 * ends with that process. */
static void leave_reader_behind(struct second_run *run, const sigset_t *mask)
{
    if (fork() != 0)
        return;
    child = 0;
    restore_signals();
    signal(SIGPIPE, SIG_IGN);
    close(STDIN_FILENO);
    for (int i = 0; i < STREAMS; i++)
        if (run->streams[i].pipe < 0)
            close(i + 1);
    while (read_some(run))
        wait_for_more(run, mask);
    _exit(0);
}

static _Noreturn void end_as(struct second_run *run, int status, const sigset_t *mask)
{
    bool is_open = read_some(run);
    for (int i = 0; i < STREAMS; i++) {
        struct stream *stream = &run->streams[i];
        if (!stream->is_silent && stream->seen.length < stream->shown.length)
            meet_difference(run, stream); /* the command has written less than was shown */
    }
    if (run->differs)
        _exit(EXIT_LOST);
    if (is_open)
        leave_reader_behind(run, mask);
    if (WIFSIGNALED(status))
        end_by_signal(WTERMSIG(status));
    if (run->is_unread)
        end_by_signal(SIGPIPE);
    _exit(run->is_broken ? 1 : WEXITSTATUS(status)); /* 1: most commands exit so if they cannot write */
}

static _Noreturn void follow(struct second_run *run, const sigset_t *mask)
{
    sigset_t awake = *mask;
    sigdelset(&awake, SIGCHLD);
    int status;
    pid_t ended;
    while ((ended = waitpid(child, &status, WNOHANG)) == 0) {
        read_some(run);
        wait_for_more(run, &awake);
    }
    if (ended < 0)
        _exit(EXIT_LOST);
    child = 0;
    end_as(run, status, mask);
}

static _Noreturn void refuse(const struct command *command)
{
    dprintf(STDERR_FILENO, "termite: cannot run again: %s: %s\n", failure_text(errno), command->argv[0]);
    _exit(EXIT_LOST);
}

static _Noreturn void run_again(struct second_run *run, const struct local_run *how)
{
    int ends[STREAMS];
    for (int i = 0; i < STREAMS; i++)
        if (!open_pipe(&run->streams[i], &ends[i]))
            refuse(run->command);
    sigset_t ours, mask;
    sigfillset(&ours);
    change_mask(SIG_BLOCK, &ours, &mask);
    watch_signals();
    pid_t launcher = getpid();
    child = fork();
    if (child < 0)
        refuse(run->command);
    if (child == 0)
        become_command(run, how, ends, &mask, launcher);
    for (int i = 0; i < STREAMS; i++)
        if (ends[i] >= 0)
            close(ends[i]);
    ours = mask;
    sigaddset(&ours, SIGCHLD);
    change_mask(SIG_SETMASK, &ours, NULL);
    follow(run, &mask);
}

_Noreturn void run_command(const struct command *command, const struct local_run *how, const struct shown shown[2])
{
    static struct second_run run;
    bool is_on_terminal = false, must_compare = false;
    for (int i = 0; i < STREAMS; i++) {
        if (shown[i].length == 0)
            continue;
        if (isatty(i + 1)) {
            is_on_terminal = true;
        } else {
            run.streams[i].shown = shown[i];
            must_compare = true;
        }
    }
    if (is_on_terminal)
        dprintf(STDERR_FILENO, "termite: 1 command runs again; the output above is of its first run\n");
    if (!must_compare)
        exec_command(command, how);
    run.command = command;
    run.is_merged = is_one_file(STDOUT_FILENO, STDERR_FILENO);
    run_again(&run, how);
}
