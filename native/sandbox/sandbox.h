/* Declare what the files of termite-sandbox share, in one section for each file.
 *
 * A file may only call files of earlier sections: the calls between the files form no circle, and a
 * test checks this. */
#ifndef TERMITE_SANDBOX_H
#define TERMITE_SANDBOX_H

#include "../shared/fields.h"

#include <linux/seccomp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum { EXIT_FAILED = 100 };

/* -- report.c ------------------------------------------------------------------------------------------------------ */

/* The descriptor to which this process reports a failure; each process of a sandbox has its own.
 * -1: none yet. */
extern int report_fd;

/* Write the field `key`=`text` to the report, and end this process with EXIT_FAILED. */
_Noreturn void end_with(const char *key, const char *text);
/* Report the field error=`text`, and end this process. */
_Noreturn void fail(const char *text);
/* Report an error from `what`, `subject` ("": none) and the text of errno, and end this process. */
_Noreturn void fail_errno(const char *what, const char *subject);

/* -- order.c ------------------------------------------------------------------------------------------------------- */

enum { ORDER_FDS = 5 };

/* An order is the message with a job, as it arrived. */
struct order {
    struct buffer config; /* the fields */
    int fds[ORDER_FDS];   /* stdout, stderr, stdin if the job was given one, the file of a trace */
    size_t fd_count;
};

/* A job, from the fields of an order. Absent texts are NULL. */
struct job {
    char *mount, *lower, *scratch, *standard_input, *hostname, *cwd, *exe;
    char **argv, **env;
    long uid, gid;
    bool keeps_root, search, no_stdin;
    long long stdin_offset;
    mode_t mask;
    unsigned long long processes, file_bytes, memory_bytes; /* limits; 0: none */
    const char *limits; /* the submitter's, as RESOURCE:SOFT:HARD with commas; checked */
    unsigned long long ignored; /* signals: bit N - 1 stands for signal N */
    int niceness;
    unsigned terminals; /* of enum terminals; 0: the job has none */
    uint16_t window[4]; /* of its terminals: rows, columns, and both in pixels */
    unsigned trace;     /* of enum trace_mode */
};

/* The streams at which a job has a terminal. All share one, but for STDERR_APART. */
enum terminals { ON_STDIN = 1, ON_STDOUT = 2, ON_STDERR = 4, STDERR_APART = 8, IS_TYPED_AT = 16, ALL_TERMINALS = 31 };

/* The trace of a job. FOR_COMPILERS leaves out calls that say nothing new if all programs of
 * the job are known compilers. */
enum trace_mode { UNTRACED, EXACT, FOR_COMPILERS };

/* Wait at the socket `channel` for an order. End this process with 0 if the mirror closes the
 * socket instead. */
void receive_order(int channel, struct order *order);
/* Return the job of the fields `config`. End this process with a report if one of them is invalid.
 * The job points into `config`, which is changed and must stay. */
struct job parse_job(const struct buffer *config);

/* Call `act` with each limit of a list as in struct job. Return false if the list is malformed. */
bool for_each_limit(const char *limits, void (*act)(int resource, unsigned long long soft, unsigned long long hard));

/* -- abstract_sockets.c (protection/) ------------------------------------------------------------------------------ */

/* Return a descriptor for `enter_scope`, or -1 if this kernel's Landlock cannot keep the sockets of
 * jobs apart. */
int make_scope(void);
/* Let this process and its later children reach no abstract sockets but their own. Close
 * `scope`. */
void enter_scope(int scope);
/* Enter a new network namespace with a loopback interface. */
void make_network(void);
/* Start the loopback interface of the current network namespace. */
void start_loopback(void);
/* Print how the sockets of jobs are kept apart on this kernel. Return the exit code. */
int print_scope(void);

/* -- local_routes.c (protection/) ---------------------------------------------------------------------------------- */

/* The first `bits` bits of an address. The address fills the beginning of `address`. */
struct local_route {
    unsigned char family, bits, address[16];
};

/* Open the table of local routes of the current network namespace. */
void open_local_routes(void);
/* Call `take` for each local route that came since the last call. Fail if the kernel refuses. */
void take_new_local_routes(bool has_ipv6, void (*take)(const struct local_route *route));

/* -- private_network.c (protection/) ------------------------------------------------------------------------------- */

/* Enter a new network namespace that the program `pasta` connects to other machines. Report if that
 * fails. The directory `scratch`/parts must exist. */
void make_private_network(const char *pasta, const char *scratch);
/* Return false if `make_private_network` was called, and pasta has ended since. */
bool is_network_alive(void);
/* If `make_private_network` was called, refuse what has become an address of the machine since. */
void refuse_new_addresses(void);

/* -- quotas.c (protection/) ---------------------------------------------------------------------------------------- */

/* Prepare `limit_namespace`. Call this before the user namespace is made, which copies limits. */
void halve_quotas(void);
/* Limit what all processes in the current user namespace have together. /proc must be mounted. */
void limit_namespace(void);
/* Return how many terminals the jobs of one `serve` may have, so that those of all leases together
 * do not take all that the kernel has for containers. A lease has at most two such processes. */
long long most_terminals(void);

/* -- own_program.c (protection/) ----------------------------------------------------------------------------------- */

/* Cover this program's file with a read-only mount of itself. If that fails, leave_program has to
 * act. */
void protect_program(void);
/* Return if this process runs a file that no job can change. Otherwise execute a sealed copy of the
 * program, with `argv`; report if that fails. */
void leave_program(char **argv);

/* -- keyring.c (protection/) --------------------------------------------------------------------------------------- */

/* Join a new session keyring that nobody may use. Return false, with errno, if this process still
 * has the old one. A kernel without keys counts as success. */
bool leave_keys(void);

/* -- call_filter.c (protection/) ----------------------------------------------------------------------------------- */

enum { GROUPS_MAX = 256 };
struct filter; /* filter_steps.h */
struct sought;

/* The ids of the submitter. The job has the first two; `groups` are other groups of the
 * submitter. */
struct ids {
    uint32_t uid, gid;
    size_t group_count;
    uint32_t groups[GROUPS_MAX];
};

/* A watched system call. SETS_ATTRIBUTE_AT has its arguments in memory. CHANGES_OWNER_AT
 * and LINKS_AT have theirs behind a directory. */
enum watched {
    NOT_WATCHED,
    CHANGES_IDS,
    CHANGES_OWNER,
    CHANGES_OWNER_AT,
    SETS_ATTRIBUTE,
    SETS_ATTRIBUTE_AT,
    LISTENS,
    LINKS,
    LINKS_AT,
    ASKS_SPACE,
    ASKS_SPACE_BY_FILE,
    MAKES_DEVICE,
};

/* The means by which calls of jobs are denied and watched. */
struct denial {
    int listener;         /* for `answer_watched_call`; -1: none */
    bool is_too_long;     /* the table has outgrown the filter: nothing is installed */
    char unfiltered[128]; /* why there is no filter, or "" */
    char unwatched[128];  /* why there is no listener although one was asked for, or "" */
};

/* Deny this process and its later children the system calls that no build needs. The process must
 * be privileged in its user namespace or have no_new_privs.
 *
 * `own`: watch the calls that a job cannot make as this submitter could; NULL: none. */
struct denial deny_calls(const struct ids *own);
/* Return what the watched call of this number does, in a program of this architecture. */
enum watched watched_call(uint32_t arch, int number);
/* Write the watched calls of this machine's own programs, or of its 32-bit programs, to `calls`.
 * Return their number. */
size_t list_watched(const struct filter *filter, bool is_native, struct sought *calls);
/* Append the steps for a call of list_watched. */
void judge_watched(struct filter *filter, const void *found);
/* Make the filter of a job that is not traced. Return false if it is too long. */
bool make_watch_filter(struct filter *filter, const struct ids *own);
/* Become `program` (its argv) without those calls. Return EXIT_FAILED, with a line on stderr, if
 * that fails. */
int deny(char **program);
/* Print why the calls of jobs cannot be watched, if that is so. Return the exit code. */
int print_watch(void);

/* -- watched_calls.c (protection/) --------------------------------------------------------------------------------- */

/* Judge a watched call of a job. Answer it, or end the job: the command then runs on the
 * submitter's machine. Pid 1 of the job gives `end_job`, which gets the signal for sent_home_by.
 * Others give NULL, and pid 1 gets the signal. */
void answer_watched_call(int listener, const struct seccomp_notif *call, const struct ids *own,
                         void (*end_job)(int signal));
/* Take a watched call that waits at the descriptor `listener`, and answer it as above. */
void take_watched_call(int listener, const struct ids *own);
/* Return the word for the report of a job that was ended by this signal, or NULL. */
const char *sent_home_by(int signal);
/* Return whether the job has given a file another name. Call this in pid 1, as the next one. */
bool is_linked(void);
/* Return whether a program may have compared both names of a linked file. `newest` is the newest
 * process of the job that has ended, `last` the name of the program that its command was at its
 * end. */
bool may_compare_links(unsigned long long newest, const char *last);
/* Let `act` take the signals by which jobs are ended. Take the one that tells of links, too. */
void take_home_signals(void (*act)(int number, siginfo_t *info, void *context));

/* -- path_set.c (trace/) ------------------------------------------------------------------------------------------- */

/* Note a path of `length` bytes with `kinds`, of enum access_kind. Return false if there are too
 * many paths, or no memory. */
bool note_path(const char *path, size_t length, uint32_t kinds);
/* Write all paths: their number (u32), the first and all kinds of each (u32), then each path with a
 * NUL. Return false, with errno, if that fails. */
bool write_paths(int fd);

/* -- job_names.c (trace/) ------------------------------------------------------------------------------------------ */

/* Read `length` bytes of the memory of a thread. Return false, with errno, if that fails. */
bool read_memory(pid_t thread, uint64_t address, void *into, size_t length);
/* Read a text with its NUL into a buffer of PATH_MAX bytes. Return its length, or -1 with errno. */
ssize_t read_name(pid_t thread, uint64_t address, char *into);
/* Write the path of a thread's descriptor, or of its directory (AT_FDCWD), to a buffer of PATH_MAX
 * bytes. Return its length, 0 for the root, or -1. Then errno is 0 if it names no file. */
ssize_t path_of_descriptor(pid_t thread, int fd, char *path);
/* Write the absolute path of a thread's `name` to a buffer of twice PATH_MAX bytes. No link in
 * it is followed, but for those of /proc to descriptors and directories. `is_at_directory`: an
 * absolute name begins at `directory` as well. Return its length, or -1 as above. */
ssize_t resolve_name(pid_t thread, int directory, const char *name, char *path, bool is_at_directory);

/* -- traced_calls.c (trace/) --------------------------------------------------------------------------------------- */

/* Note the paths that a call of a thread names, or why they cannot be noted. */
void note_call(pid_t thread, const struct seccomp_data *call);
/* Note a gap, of enum gap. */
void note_gap(uint32_t gap);
/* Return all gaps so far. */
uint32_t noted_gaps(void);

/* -- trace_filter.c (trace/) --------------------------------------------------------------------------------------- */

/* Prepare install_trace_filter. Return NULL, or a text of what is missing. */
const char *make_trace_filter(bool for_compilers, const struct ids *own);
/* Install the filter in this thread. Return its listener, or -1 with errno. */
int install_trace_filter(void);
/* Return whether the filter of a job that is not traced would ask the listener about this call. */
bool is_watched_now(const struct seccomp_data *call);

/* -- tracer.c (trace/) --------------------------------------------------------------------------------------------- */

/* Start to trace a job, before there is one. make_trace_filter was called. `end_job` is that of
 * answer_watched_call. Report if that fails. */
void start_tracer(const struct ids *own, void (*end_job)(int signal));
/* Fork a process that is traced, if start_tracer was called. It calls `child`, which must not
 * return. Return its pid, or -1 with errno. */
pid_t fork_command(void (*child)(const void *argument), const void *argument);
/* End the trace, if there is one, when all of the job is dead. Write the paths to `file`, and
 * add the fields calls=, lost= and gaps= to the report. */
void end_tracer(int file, struct buffer *said);
/* Return NULL if jobs can be traced, or a text of what is missing. Call this where SIGCHLD is not
 * ignored. */
const char *try_tracing(void);
/* Print why jobs cannot be traced, if that is so. Return the exit code. */
int print_tracing(void);

/* -- user.c -------------------------------------------------------------------------------------------------------- */

/* Map the inner to the outer ids in the user namespace that this process has just made. Return
 * NULL, or a text of what failed, with errno. */
const char *map_user(long inner_uid, long outer_uid, long inner_gid, long outer_gid);
/* Find out who gets the cores of this machine. A program then gets none of a job. */
void look_at_core_pattern(void);
/* Take on the job's ids, drop all privilege, and apply the job's limits, umask and working
 * directory. If the submitter has a limit that this machine does not allow, report that and end
 * this process. */
void become_job(const struct job *job);

/* -- root.c: in three steps, each as early as possible ------------------------------------------------------------- */

/* Make the parts that all roots share, below `scratch`. Call this in the mount namespace from which
 * those of the jobs are copied. */
void make_parts(const char *scratch);
/* Make the parts that need the job's namespaces, but not the job. */
void make_own_parts(void);
/* Make the job's root and change to it. */
void make_root(const struct job *job);

/* -- terminal.c (streams/) ----------------------------------------------------------------------------------------- */

/* Open the job's terminals in its root, put them in place of its streams, and send the leading ends
 * through `channel`. Call this only if it has some. */
void give_terminals(const struct job *job, int channel);
/* Make the terminal the one that controls this process's session. If somebody types at it, begin
 * a session of this process's own. */
void take_terminal(const struct job *job, int terminal);

/* -- job_processes.c ----------------------------------------------------------------------------------------------- */

/* Return whether a process of the job may have been refused by the limit of the worker's user. Call
 * this when the command has ended, before what is left is killed. */
bool may_be_refused(void);
/* Return the number of the newest process in this pid namespace: as many have been made since the
 * start of the job, unless the numbers have begun anew. Return 0 if it is not known. */
unsigned long long newest_process(void);
/* Return how many processes the job has made, if they are so many that it may have met its limit,
 * or 0. Set `is_full` if it still meets its limit. */
unsigned long long made_processes(const struct job *job, long long lasted_ns, bool *is_full);
/* Return how many bytes the processes of the job have written by write(2) and its like, those that
 * were reaped. Return 0 if it is not known. */
unsigned long long written_bytes(void);
/* Return whether processes of the job live on for a while after its command. A job that has none
 * waits for nothing. */
bool are_processes_left(void);
/* Kill and reap all other processes of the job. */
void end_what_is_left(void);

/* -- job_init.c ---------------------------------------------------------------------------------------------------- */

/* Be pid 1 of a job: wait at `channel` for an order, run it and report its end. Call this in fresh
 * mount, pid, ipc and uts namespaces. An order that is not traced as `trace` says is refused. `own`
 * are the ids of the submitter, or NULL. */
_Noreturn void be_init(int channel, enum trace_mode trace, const struct ids *own);

/* -- serve.c ------------------------------------------------------------------------------------------------------- */

/* The sandboxes that a `serve` makes. `network`: the jobs use the machine's network. `pasta`:
 * they use it through this program, or NULL. `network_fd`: they use this network namespace, or -1.
 * `own` are the ids of all jobs, or NULL. */
struct sandbox_options {
    bool network;
    const char *pasta;
    int network_fd;
    enum trace_mode trace;
    const struct ids *own;
};

/* Make a sandbox for each byte that arrives at `socket`, until the mirror closes it. Return the
 * exit code. */
int serve(int socket, const char *scratch, const struct sandbox_options *options);

/* -- reach.c ------------------------------------------------------------------------------------------------------- */

enum { REACH_MAX = 16 };
/* Make the directories `paths` reachable for every user. Call this as root, in a mount namespace of
 * one's own. Return NULL, or the path that could not be made reachable, with errno. */
const char *reach(char *const *paths, size_t count);

/* -- remove.c ------------------------------------------------------------------------------------------------------ */

/* Remove the directories below `scratch` whose names come on stdin, with a NUL after each. Return
 * the exit code. */
int remove_listed(const char *scratch);

/* -- enter.c ------------------------------------------------------------------------------------------------------- */

/* Run a program as pid 1 of new namespaces; `argv` holds the options and the program. Return the
 * program's exit code, or EXIT_FAILED, with a line on stderr, if it could not be started. */
int enter(char **argv);

#endif
