/* What the files of termite-sandbox share. */
#ifndef TERMITE_SANDBOX_H
#define TERMITE_SANDBOX_H

#include <stdbool.h>
#include <sys/types.h>

enum { EXIT_FAILED = 100 };

/* One job, from the records of docs/protocol.md, "Sandbox". Absent texts are NULL. */
struct job {
    char *mount, *lower, *scratch, *standard_input, *hostname, *cwd, *exe;
    char **argv, **env;
    long uid, gid;
    int network_namespace; /* to be entered; -1: a new one is made */
    bool keeps_root, search, network, no_stdin;
    long long stdin_offset;
    mode_t mask;
    unsigned long long processes, file_bytes, memory_bytes; /* limits, 0: none */
};

/* Writes one error= record with errno's text to the report and ends this process. */
_Noreturn void fail_errno(const char *what, const char *subject);
_Noreturn void fail(const char *text);

/* Makes the death of the parent the death of this process; the parent holds the other end of the pipe `lifeline`. */
void die_with_parent(int lifeline);

/* sandbox_root.c: inside fresh mount, pid, ipc and uts namespaces, makes the job's root and goes there. */
void make_root(const struct job *job);

/* sandbox_user.c */

/* Maps `inner` to `outer` in the user namespace that this process has just made. NULL, or what went wrong. */
const char *map_user(long inner_uid, long outer_uid, long inner_gid, long outer_gid);
/* Takes on the job's identity, without privilege; applies its limits, umask and working directory. */
void become_job(const struct job *job);

/* sandbox_reach.c: as root, in a mount namespace of its own: makes `paths` reachable for every user. NULL, or the one
 * that could not be. */
enum { REACH_MAX = 16 };
const char *reach(char *const *paths, size_t count);

/* sandbox_enter.c */
int enter(char **argv);

#endif
