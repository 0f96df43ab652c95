/* What the files of termite-sandbox share. */
#ifndef TERMITE_SANDBOX_H
#define TERMITE_SANDBOX_H

#include "../shared/records.h"

#include <stdbool.h>
#include <sys/types.h>

enum { EXIT_FAILED = 100 };

/* One job, from the records of docs/develop/protocol.md, "Sandbox". Absent texts are NULL. */
struct job {
    char *mount, *lower, *scratch, *standard_input, *hostname, *cwd, *exe;
    char **argv, **env;
    long uid, gid;
    bool keeps_root, search, no_stdin;
    long long stdin_offset;
    mode_t mask;
    unsigned long long processes, file_bytes, memory_bytes; /* limits, 0: none */
};

/* main.c */

/* Where this process says what has become of its part. */
extern int report;

/* Write one record to the report (error= with the text, or with that of errno), and end this process. */
_Noreturn void end_with(const char *key, const char *text);
_Noreturn void fail(const char *text);
_Noreturn void fail_errno(const char *what, const char *subject);

/* The job points into the configuration, which it changes. */
struct job parse_job(const struct buffer *config);

/* scope.c */

/* What `enter_scope` needs, or -1 where the kernel cannot keep jobs apart so. */
int make_scope(void);
/* This process and those that it makes reach no abstract socket but their own. */
void enter_scope(int scope);
/* A network namespace with a loopback interface; the interface alone, where there is a namespace. */
void make_network(void);
void start_loopback(void);
/* `sockets`: prints how jobs are kept apart. */
int say_scope(void);

/* own.c */

/* Covers this program's file with a read-only mount of itself, if that can be done. */
void protect_program(void);
/* Returns if this program was started from a file that no job can change; else starts it from one, with `argv`. */
void leave_program(char **argv);
/* A session keyring of its own, which nobody may use. False, with errno: there are keys, and they could not be left. */
bool leave_keys(void);

/* serve.c: makes sandboxes whenever whoever is at the other end of the socket asks, until that is closed. */
int serve(int socket, const char *scratch, bool network);

/* deny.c: denies this process, and all that it starts, the calls that no build needs. It must be privileged in its user
 * namespace, or have no_new_privs. NULL, or what went wrong: errno says why. */
const char *deny_calls(void);
/* `deny`: becomes `program` without those calls. */
int deny(char **program);

/* job_init.c: pid 1 of a job, in fresh mount, pid, ipc and uts namespaces. Waits at `channel` for a job, and runs it. */
_Noreturn void be_init(int channel);

/* root.c: in three steps, as early as each can be taken. */

/* What all roots have in common, below `scratch`; in the mount namespace that those of the jobs are copies of. */
void make_parts(const char *scratch);
/* In the job's namespaces: what needs only these. */
void make_own_parts(void);
/* The job's root. Goes there. */
void make_root(const struct job *job);

/* user.c */

/* Maps `inner` to `outer` in the user namespace that this process has just made. NULL, or what went wrong. */
const char *map_user(long inner_uid, long outer_uid, long inner_gid, long outer_gid);
/* Takes on the job's identity, without privilege; applies its limits, umask and working directory. */
void become_job(const struct job *job);

/* reach.c: as root, in a mount namespace of its own: makes `paths` reachable for every user. NULL, or the one
 * that could not be. */
enum { REACH_MAX = 16 };
const char *reach(char *const *paths, size_t count);

/* remove.c: removes directories below `scratch` whose names it reads from stdin, a NUL after each. */
int remove_listed(const char *scratch);

/* enter.c */
int enter(char **argv);

#endif
