/* Declare what the files of the launcher share, in one section for each file.
 *
 * A file may only call files of earlier sections: the calls between the files form no circle, and a
 * test checks this. */
#ifndef TERMITE_LAUNCHER_H
#define TERMITE_LAUNCHER_H

#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct buffer;

#define SOCKET_NAME ".termite-socket"

/* Exit codes of the launcher's own; docs/use/reference.md lists them. */
enum {
    EXIT_FAILED = 100,   /* the command line is wrong */
    EXIT_LOST = 101,     /* the command cannot be run again, or has printed something else when it was */
    EXIT_PROTOCOL = 102, /* the master sent something invalid, and the command cannot be run again */
    EXIT_NOWHERE = 103,  /* the command would have to run on this machine, and TERMITE_LOCAL=never */
    EXIT_MISPLACED = 106, /* the tree is built at another path than its own */
};

/* A command, as the build tool has called it. */
struct command {
    const char *how;  /* direct, shell or preload */
    const char *tool; /* name of the build tool for preload, else "" */
    const char *exe;
    bool search; /* look for `exe` in PATH, as execvp does */
    char **argv;
    char **notes; /* the words before argv, of which some are --name=value for plugins; NULL: none */
};

/* -- command_line.c ------------------------------------------------------------------------------------------------ */

/* Return the command that the launcher's own `argv` names. Change argv[0] of termite-shell. For
 * --help and --version, print the answer and end this process with 0; for a wrong command line,
 * with EXIT_FAILED. */
struct command parse_command_line(char **argv);
/* Return whether `word` is a note for the master's plugins: `--name=value`, and no option of the
 * launcher. */
bool is_note(const char *word);

/* -- search.c ------------------------------------------------------------------------------------------------------ */

/* Execute `file` with `argv`, as execvp of glibc does. Return if that fails, with errno. `argv`
 * must not be empty. */
void search_and_execute(const char *file, char **argv);
/* Return whether there is a program that `file` names. `search`: look for it as execvp does. */
bool is_startable(const char *file, bool search);
/* Return the text of glibc's strerror for `failure`, a number of errno. */
const char *failure_text(int failure);

/* -- signals.c ----------------------------------------------------------------------------------------------------- */

/* Change the mask of blocked signals as sigprocmask does, but for every signal. musl's sigprocmask
 * leaves out three that musl uses itself, and glibc programs use one of them as SIGRTMIN. Return 0,
 * or -1 with errno. */
int change_mask(int how, const sigset_t *set, sigset_t *before);
/* End this process by `signal`, without a core dump. If the signal does not kill, exit with 128 +
 * signal. */
_Noreturn void end_by_signal(int signal);

/* -- master_socket.c ----------------------------------------------------------------------------------------------- */

/* Return the path of the socket of the master that serves `cwd`, or NULL if there is none. `path`
 * is room for it. A build tool below a build that works outside of all trees stays with the master
 * of that build, which $TERMITE_BUILD_SOCKET names. An empty $TERMITE_SOCKET means "no master". The
 * master need not run: its socket may be left over. */
const char *find_master(const char *cwd, char path[PATH_MAX]);
/* Return a connection to the socket at `path`, or -1 if nobody accepts there. Wait up to 30 s for
 * that, and print a line if the time is over. */
int connect_master(const char *path);
/* Send all bytes. Return false if the master is gone. Interrupted calls are repeated. */
bool send_whole(int master, const void *bytes, size_t length);

/* -- settings.c (surroundings/) ------------------------------------------------------------------------------------ */

/* Print a line for each variable of termite whose value, or whose name, is a misspelling: it is
 * ignored. */
void warn_of_settings(void);

/* -- mark.c (surroundings/) ---------------------------------------------------------------------------------------- */

/* End this process with EXIT_MISPLACED, after a line, if `cwd` is in a tree that is built at
 * another path. Call this before the command runs here without an order of the master. */
void check_mark(const char *cwd);

/* -- local_run.c --------------------------------------------------------------------------------------------------- */

/* The environment that a verdict asks for. */
struct local_run {
    bool recurse; /* keep the preload set-up, so that the command's own commands come to the launcher too */
    char **set;   /* NAME=value words to set, with a NULL at the end; NULL: none */
};

/* Become the command. If it cannot be executed, say so and exit with 126 or 127, as a shell
 * does. */
_Noreturn void exec_command(const struct command *command, const struct local_run *run);
/* Call this before the command runs on this machine without an order of the master. Print a line
 * for each variable of termite that is ignored. If TERMITE_LOCAL=never forbids that the command
 * runs here, print `reason` and `detail`, and end this process with EXIT_NOWHERE. */
void check_may_run_here(const struct command *command, const char *reason, const char *detail);
/* Return whether the user has switched termite off (TERMITE=off). */
bool is_switched_off(void);
/* Return the path of the preload library, or NULL if the build tool was started without it. */
const char *preload_library(void);

/* -- stdin.c (streams/) -------------------------------------------------------------------------------------------- */

/* A job's request to read standard input. */
struct stdin_wish {
    size_t size;  /* bytes at most; 0: there is no request */
    off_t offset; /* position in a file; negative: read a stream */
    bool peek;    /* leave the bytes in the stream if that is possible */
};

/* Add the fields that describe standard input. */
void stdin_describe(struct buffer *invoke);
/* Read up to wish->size bytes. Return their number, 0 at the end of file, or -1 with errno. Set
 * *is_taken if the bytes came out of a stream that other processes may share, so that nobody else
 * can get them. */
ssize_t stdin_read(const struct stdin_wish *wish, char *bytes, bool *is_taken);
/* Remove `size` bytes from the stream, because the job has taken so many of the bytes that it was
 * shown. Return whether any were removed. */
bool stdin_drop(unsigned long long size);
/* Set the position in the file to `offset`, where the job has stopped reading. */
void stdin_leave_at(off_t offset);

/* -- terminal.c (streams/) ----------------------------------------------------------------------------------------- */

enum { WINDOW_BYTES = 32 };

/* Return whether two descriptors are open on the same terminal. Both must be terminals. */
bool is_one_terminal(int one, int other);
/* Note that this descriptor, stdout or stderr, is a terminal. */
void note_terminal(int fd);
/* Return whether stdout or stderr is a terminal. */
bool has_terminal(void);
/* Write the size of the terminal's window to `text`: rows, columns, and both in pixels, with colons
 * between them and a NUL behind them. Return the length with the NUL. This is safe in a signal
 * handler. */
size_t write_window(char text[WINDOW_BYTES]);
/* Return whether the window has another size than write_window has written. This is safe in a
 * signal handler, too. */
bool is_window_new(void);
/* Add the field of the window if there is a terminal. */
void terminal_describe(struct buffer *invoke);

/* -- output.c (streams/) ------------------------------------------------------------------------------------------- */

/* The output that a stream has shown so far: its length, and a hash of its bytes. */
struct shown {
    unsigned long long length;
    uint64_t hash;
};

/* Add bytes to the output that was shown. */
void shown_add(struct shown *shown, const char *bytes, size_t length);
/* Return whether two descriptors are open on the same file. */
bool is_one_file(int one, int other);
/* Add the fields that describe stdout and stderr, and whether stdin is a terminal. */
void output_describe(struct buffer *invoke, const struct command *command);
/* Write all bytes, even if the descriptor is non-blocking. Return false, with errno, if that is
 * impossible. */
bool output_write(int fd, const char *bytes, size_t length);

/* -- second_run.c (streams/) --------------------------------------------------------------------------------------- */

/* Become the command, as exec_command does, if its remote run has shown no output, or only on
 * terminals. Otherwise run the command as a child, show what it writes behind the shown output, and
 * end as it does. If stdout and stderr are one file, shown[0] counts the output of both. */
_Noreturn void run_command(const struct command *command, const struct local_run *run, const struct shown shown[2]);

/* -- vantage.c (surroundings/) ------------------------------------------------------------------------------------- */

/* Add the fields that describe from where this process sees files, users and the machine. If one
 * cannot be determined, its value is empty. */
void vantage_describe(struct buffer *invoke);

/* -- inheritance.c (surroundings/) --------------------------------------------------------------------------------- */

/* Add the fields of what the command inherits from this process: limits, niceness, ignored
 * signals, and a descriptor that it names. */
void inheritance_describe(struct buffer *invoke, const struct command *command);

/* -- invocation.c -------------------------------------------------------------------------------------------------- */

/* Write the frame that asks the master to run the command to the empty `frame`. `token` is the name
 * of the job, or "". Return false if there is no memory. */
bool make_invocation(struct buffer *frame, const struct command *command, const char *cwd, const char *token);

/* -- silence.c ----------------------------------------------------------------------------------------------------- */

/* Let reads from the master and sends to it fail with EAGAIN after each tick of silence. The caller
 * then calls note_silence, and tries again. */
void listen_for_silence(int master, const struct command *command);
/* Return the length of a tick in milliseconds, for poll. */
int silence_tick_ms(void);
/* Note that a tick has passed without a byte of the master. Ask the master whether it lives, if no
 * frame is half sent (`may_ask`). If it does not answer, print a line once. */
void note_silence(bool may_ask);
/* Note that the master has sent something. */
void note_answer(void);

/* -- cancel.c ------------------------------------------------------------------------------------------------------ */

/* From now on, let each signal that means "stop the job" send a cancel to the master, and each new
 * size of the terminal's window the size. */
void cancel_on_signals(int master);
/* Restore the signal handlers and the mask with which this process was started. If one of the
 * signals has come, end this process by it. */
void stop_cancelling(void);
/* Tell the master to stop the job, as if `signal` had come. */
void cancel_job(int signal);
/* Return the first signal that came, or 0. */
int cancelled_by(void);
/* Send all bytes, however long the master takes to read them, and never let a cancel come between
 * them: a signal meanwhile sends its cancel behind them. Return false if the master is gone. */
bool send_undisturbed(int master, const void *bytes, size_t length);

/* -- redo.c -------------------------------------------------------------------------------------------------------- */

/* The answer of the plan of a vanished master about the job. */
enum redo_answer {
    REDO_ABSENT, /* the job has changed nothing, and never will */
    REDO_ENDED,  /* all that the job has changed is written */
    REDO_FAILED, /* that is unknown, or not all could be written: the command must not run again */
};

/* Make the name of this job, for the master at `socket_path`. Return it in hex. */
const char *redo_token(const char *socket_path);
/* Wait until the plan of the job is finished. Call this at most once. For REDO_ENDED, set
 * `fields` to those of the exit, and `*length` to their length. For REDO_FAILED, the reason was
 * printed if it is known. */
enum redo_answer ask_plan(char *fields, size_t size, size_t *length);

/* -- job_exit.c ---------------------------------------------------------------------------------------------------- */

struct job_exit {
    int code, signal;               /* by `signal` if it is not 0 */
    off_t stdin_offset;             /* of a file; -1: it stays where it is */
    unsigned long long stdin_taken; /* bytes of a stream that were shown before */
};

/* Parse the fields of an exit. Return false if they are not those of one. */
bool parse_exit(char *fields, size_t length, struct job_exit *exit);
/* End as the job did. A process that shares our stdin reads on from where the job has stopped. */
_Noreturn void end_like_job(const struct job_exit *exit);

/* -- conversation.c ------------------------------------------------------------------------------------------------ */

/* Serve the job until it has ended, and end as the command did. The invocation has been sent to
 * `master`. */
_Noreturn void relay(int master, const struct command *command);

#endif
