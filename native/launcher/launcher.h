/* What the files of the launcher share. */
#ifndef TERMITE_LAUNCHER_H
#define TERMITE_LAUNCHER_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct buffer;

enum {
    EXIT_FAILED = 100,   /* the launcher was called wrongly */
    EXIT_LOST = 101,     /* the master went away in mid-job, and the command had already been heard */
    EXIT_PROTOCOL = 102, /* the master said something that it must not say, likewise */
    EXIT_NOWHERE = 103,  /* it would have to run here, and TERMITE_LOCAL=never */
};

/* What the build tool called. */
struct command {
    const char *how;  /* direct, shell or preload */
    const char *tool; /* the build tool's name for preload, else empty */
    const char *exe;
    bool search; /* look for exe in PATH, as execvp does */
    char **argv;
    char **notes; /* --name=value words for the master's plugins, up to argv; NULL: none */
};

/* local_run.c: the command in this process. */

/* What a verdict says about the environment: keep the preload set-up, and names to set (NULL at the end). */
struct local_run {
    bool recurse;
    char **set;
};

_Noreturn void exec_command(const struct command *command, const struct local_run *run);
/* To be called before the command runs here though no master has said so. Ends this process where the user forbids it;
 * `reason` and `detail` are said then. */
void check_may_run_here(const struct command *command, const char *reason, const char *detail);
/* Ends this process by the same signal. */
_Noreturn void end_by_signal(int signal);
/* The library's path, or NULL where the build tool has no library of ours. */
const char *preload_library(void);

/* search.c: what C libraries do each in its own way. */

/* execvp. Returns where it fails, with errno. `argv` is not empty. */
void search_and_execute(const char *file, char **argv);
/* strerror. */
const char *failure_text(int failure);

/* cancel.c: signals that mean "stop the job". */

/* sigprocmask with nothing left out: musl keeps three signals to itself, one of which (SIGRTMIN) is glibc programs'. */
int change_mask(int how, const sigset_t *set, sigset_t *before);

void cancel_on_signals(int master);
/* Back to what this process was started with. Ends it where a signal has come already. */
void stop_cancelling(void);
/* Tell the master to stop the job, as if `signal` had come. */
void cancel_job(int signal);
/* The signal that came, or 0. */
int cancelled_by(void);
/* False where the master is gone. */
bool send_whole(int master, const void *bytes, size_t length);
/* The same with no cancel in the middle of the bytes. */
bool send_undisturbed(int master, const void *bytes, size_t length);

/* stdin.c: the standard input, which others may share. */

/* What the job wants of it: `size` bytes, at `offset` of a file; where that is negative, what one read gives. `peek`:
 * leave there what can be left there. No size: nothing. */
struct stdin_wish {
    size_t size;
    off_t offset;
    bool peek;
};

/* Adds the records that say what it is. */
void stdin_describe(struct buffer *invoke);
/* As read(2). *is_taken: somebody else could have had these bytes, and cannot any more. */
ssize_t stdin_read(const struct stdin_wish *wish, char *bytes, bool *is_taken);
/* The job has taken so many bytes of what it was shown. */
void stdin_drop(unsigned long long size);
void stdin_leave_at(off_t offset);

/* vantage.c: from where this process sees files, users and the machine. */

/* Adds the records that say so; one that cannot be told is empty. */
void vantage_describe(struct buffer *invoke);

/* conversation.c: the conversation with the master. */

_Noreturn void relay(int master, const struct command *command);

#endif
