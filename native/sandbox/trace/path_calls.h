/* List the system calls that name a path, for trace_filter.c and traced_calls.c.
 *
 * A row says which arguments are the directory, the path and the flags; -1: none. Calls on a
 * descriptor alone have no row, because the file was opened by a name before. Those that list a
 * directory do. */
#ifndef TERMITE_PATH_CALLS_H
#define TERMITE_PATH_CALLS_H

#include <stdint.h>

/* The ways in which a job uses a path, as bits. `AccessKind` in
 * termite/engine/recall/logic/traced_paths.py has the same bits. */
enum access_kind {
    READS = 1,
    WRITES = 1 << 1,
    CREATES = 1 << 2,
    EXCLUSIVE = 1 << 3,
    TRUNCATES = 1 << 4,
    STATS = 1 << 5,
    CHECKS = 1 << 6,
    READS_LINK = 1 << 7,
    EXECUTES = 1 << 8,
    LISTS_NAMES = 1 << 9,
    ENTERS = 1 << 10,
    UNLINKS = 1 << 11,
    MAKES = 1 << 12,
    CHANGES_META = 1 << 13,
    OPENS_PATH = 1 << 14,
    NO_FOLLOW = 1 << 15, /* a row with neither of these two has a flag that decides */
    MOVES = 1 << 16,
    FOLLOW = 1 << 17,
};

/* The way in which the arguments of a call are read. */
enum reading {
    OPENED,        /* open(2): the kinds depend on the flags */
    OPENED_BY_HOW, /* openat2(2): the flags are in memory */
    NAMED,
    NAMED_TWICE,   /* rename(2), link(2): the second path is made */
    BY_DESCRIPTOR, /* the path is that of a descriptor */
    BY_SOCKET,     /* bind(2), connect(2): the path is in an address */
    BY_SOCKETCALL, /* the same of i386, with its arguments in memory */
    LEAVES_GAP,    /* afterwards names mean other files; the kinds are a gap */
    OPENS_TREE,    /* open_tree(2): a gap if it clones */
    FILTERS,       /* seccomp(2) */
    CONTROLS,      /* prctl(2), if it installs a filter */
};

/* Reasons why a trace is not complete, as bits. `TraceGap` in
 * termite/engine/model.py has the same bits. */
enum gap {
    GAP_MOUNT = 1,
    GAP_CHROOT = 1 << 1,
    GAP_NAMESPACE = 1 << 2,
    GAP_FILTER = 1 << 3,     /* a tracer of the job's own was not notified, so the job must run again */
    GAP_UNREADABLE = 1 << 4, /* the memory or a directory of a process */
    GAP_PATHS = 1 << 5,      /* too many paths, or no memory for them */
};

static const struct path_call {
    int numbers[2]; /* of x86-64 and i386 */
    enum reading how;
    signed char dir, path, flags, dir2, path2;
    uint32_t kinds;
} PATH_CALLS[] = {
    {{2, 5}, OPENED, -1, 0, 1, 0, 0, 0},                                    /* open */
    {{257, 295}, OPENED, 0, 1, 2, 0, 0, 0},                                 /* openat */
    {{437, 437}, OPENED_BY_HOW, 0, 1, 2, 0, 0, 0},                          /* openat2 */
    {{85, 8}, NAMED, -1, 0, -1, 0, 0, CREATES | TRUNCATES | FOLLOW},        /* creat */
    {{428, 428}, OPENS_TREE, 0, 1, 2, 0, 0, OPENS_PATH | STATS},            /* open_tree */
    {{4, 106}, NAMED, -1, 0, -1, 0, 0, STATS | FOLLOW},                     /* stat */
    {{-1, 195}, NAMED, -1, 0, -1, 0, 0, STATS | FOLLOW},                    /* stat64 */
    {{-1, 18}, NAMED, -1, 0, -1, 0, 0, STATS | FOLLOW},                     /* oldstat */
    {{-1, 84}, NAMED, -1, 0, -1, 0, 0, STATS | NO_FOLLOW},                  /* oldlstat */
    {{6, 107}, NAMED, -1, 0, -1, 0, 0, STATS | NO_FOLLOW},                  /* lstat */
    {{-1, 196}, NAMED, -1, 0, -1, 0, 0, STATS | NO_FOLLOW},                 /* lstat64 */
    {{262, 300}, NAMED, 0, 1, 3, 0, 0, STATS},                              /* newfstatat, fstatat64 */
    {{332, 383}, NAMED, 0, 1, 2, 0, 0, STATS},                              /* statx */
    {{254, 292}, NAMED, -1, 1, -1, 0, 0, STATS | FOLLOW},                   /* inotify_add_watch */
    {{303, 341}, NAMED, 0, 1, 4, 0, 0, STATS},                              /* name_to_handle_at */
    {{21, 33}, NAMED, -1, 0, -1, 0, 0, CHECKS | FOLLOW},                    /* access */
    {{269, 307}, NAMED, 0, 1, -1, 0, 0, CHECKS | FOLLOW},                   /* faccessat */
    {{439, 439}, NAMED, 0, 1, 3, 0, 0, CHECKS},                             /* faccessat2 */
    {{80, 12}, NAMED, -1, 0, -1, 0, 0, ENTERS | FOLLOW},                    /* chdir */
    {{81, 133}, BY_DESCRIPTOR, 0, -1, -1, 0, 0, ENTERS},                    /* fchdir */
    {{191, 229}, NAMED, -1, 0, -1, 0, 0, CHECKS | FOLLOW},                  /* getxattr */
    {{192, 230}, NAMED, -1, 0, -1, 0, 0, CHECKS | NO_FOLLOW},               /* lgetxattr */
    {{194, 232}, NAMED, -1, 0, -1, 0, 0, CHECKS | FOLLOW},                  /* listxattr */
    {{195, 233}, NAMED, -1, 0, -1, 0, 0, CHECKS | NO_FOLLOW},               /* llistxattr */
    {{464, 464}, NAMED, 0, 1, 2, 0, 0, CHECKS},                             /* getxattrat */
    {{465, 465}, NAMED, 0, 1, 2, 0, 0, CHECKS},                             /* listxattrat */
    {{137, 99}, NAMED, -1, 0, -1, 0, 0, CHECKS | FOLLOW},                   /* statfs */
    {{-1, 268}, NAMED, -1, 0, -1, 0, 0, CHECKS | FOLLOW},                   /* statfs64 */
    {{42, 362}, BY_SOCKET, -1, 1, 2, 0, 0, CHECKS | FOLLOW},                /* connect */
    {{49, 361}, BY_SOCKET, -1, 1, 2, 0, 0, MAKES | NO_FOLLOW},              /* bind */
    {{-1, 102}, BY_SOCKETCALL, -1, 1, -1, 0, 0, 0},                         /* socketcall */
    {{89, 85}, NAMED, -1, 0, -1, 0, 0, READS_LINK | NO_FOLLOW},             /* readlink */
    {{267, 305}, NAMED, 0, 1, -1, 0, 0, READS_LINK | NO_FOLLOW},            /* readlinkat */
    {{59, 11}, NAMED, -1, 0, -1, 0, 0, EXECUTES | FOLLOW},                  /* execve */
    {{322, 358}, NAMED, 0, 1, 4, 0, 0, EXECUTES},                           /* execveat */
    {{-1, 86}, NAMED, -1, 0, -1, 0, 0, READS | FOLLOW},                     /* uselib */
    {{78, 141}, BY_DESCRIPTOR, 0, -1, -1, 0, 0, LISTS_NAMES},               /* getdents */
    {{217, 220}, BY_DESCRIPTOR, 0, -1, -1, 0, 0, LISTS_NAMES},              /* getdents64 */
    {{-1, 89}, BY_DESCRIPTOR, 0, -1, -1, 0, 0, LISTS_NAMES},                /* readdir */
    {{82, 38}, NAMED_TWICE, -1, 0, -1, -1, 1, UNLINKS | MOVES | NO_FOLLOW}, /* rename */
    {{264, 302}, NAMED_TWICE, 0, 1, -1, 2, 3, UNLINKS | MOVES | NO_FOLLOW}, /* renameat */
    {{316, 353}, NAMED_TWICE, 0, 1, -1, 2, 3, UNLINKS | MOVES | NO_FOLLOW}, /* renameat2 */
    {{86, 9}, NAMED_TWICE, -1, 0, -1, -1, 1, MOVES | NO_FOLLOW},            /* link */
    {{265, 303}, NAMED_TWICE, 0, 1, 4, 2, 3, MOVES},                        /* linkat */
    {{87, 10}, NAMED, -1, 0, -1, 0, 0, UNLINKS | NO_FOLLOW},                /* unlink */
    {{263, 301}, NAMED, 0, 1, -1, 0, 0, UNLINKS | NO_FOLLOW},               /* unlinkat */
    {{84, 40}, NAMED, -1, 0, -1, 0, 0, UNLINKS | NO_FOLLOW},                /* rmdir */
    {{83, 39}, NAMED, -1, 0, -1, 0, 0, MAKES | NO_FOLLOW},                  /* mkdir */
    {{258, 296}, NAMED, 0, 1, -1, 0, 0, MAKES | NO_FOLLOW},                 /* mkdirat */
    {{88, 83}, NAMED, -1, 1, -1, 0, 0, MAKES | NO_FOLLOW},                  /* symlink */
    {{266, 304}, NAMED, 1, 2, -1, 0, 0, MAKES | NO_FOLLOW},                 /* symlinkat */
    {{133, 14}, NAMED, -1, 0, -1, 0, 0, MAKES | NO_FOLLOW},                 /* mknod */
    {{259, 297}, NAMED, 0, 1, -1, 0, 0, MAKES | NO_FOLLOW},                 /* mknodat */
    {{76, 92}, NAMED, -1, 0, -1, 0, 0, CHANGES_META | WRITES | FOLLOW},     /* truncate */
    {{-1, 193}, NAMED, -1, 0, -1, 0, 0, CHANGES_META | WRITES | FOLLOW},    /* truncate64 */
    {{90, 15}, NAMED, -1, 0, -1, 0, 0, CHANGES_META | FOLLOW},              /* chmod */
    {{268, 306}, NAMED, 0, 1, -1, 0, 0, CHANGES_META | FOLLOW},             /* fchmodat */
    {{452, 452}, NAMED, 0, 1, 3, 0, 0, CHANGES_META},                       /* fchmodat2 */
    {{92, 212}, NAMED, -1, 0, -1, 0, 0, CHANGES_META | FOLLOW},             /* chown, chown32 */
    {{-1, 182}, NAMED, -1, 0, -1, 0, 0, CHANGES_META | FOLLOW},             /* chown, 16 bits */
    {{94, 198}, NAMED, -1, 0, -1, 0, 0, CHANGES_META | NO_FOLLOW},          /* lchown, lchown32 */
    {{-1, 16}, NAMED, -1, 0, -1, 0, 0, CHANGES_META | NO_FOLLOW},           /* lchown, 16 bits */
    {{260, 298}, NAMED, 0, 1, 4, 0, 0, CHANGES_META},                       /* fchownat */
    {{132, 30}, NAMED, -1, 0, -1, 0, 0, CHANGES_META | FOLLOW},             /* utime */
    {{235, 271}, NAMED, -1, 0, -1, 0, 0, CHANGES_META | FOLLOW},            /* utimes */
    {{261, 299}, NAMED, 0, 1, -1, 0, 0, CHANGES_META | FOLLOW},             /* futimesat */
    {{280, 320}, NAMED, 0, 1, 3, 0, 0, CHANGES_META},                       /* utimensat */
    {{-1, 412}, NAMED, 0, 1, 3, 0, 0, CHANGES_META},                        /* utimensat_time64 */
    {{188, 226}, NAMED, -1, 0, -1, 0, 0, CHANGES_META | FOLLOW},            /* setxattr */
    {{189, 227}, NAMED, -1, 0, -1, 0, 0, CHANGES_META | NO_FOLLOW},         /* lsetxattr */
    {{463, 463}, NAMED, 0, 1, 2, 0, 0, CHANGES_META},                       /* setxattrat */
    {{197, 235}, NAMED, -1, 0, -1, 0, 0, CHANGES_META | FOLLOW},            /* removexattr */
    {{198, 236}, NAMED, -1, 0, -1, 0, 0, CHANGES_META | NO_FOLLOW},         /* lremovexattr */
    {{466, 466}, NAMED, 0, 1, 2, 0, 0, CHANGES_META},                       /* removexattrat */
    /* After these, a name is no longer that of the same file, or a tracer misses its calls. */
    {{161, 61}, LEAVES_GAP, -1, -1, -1, 0, 0, GAP_CHROOT},                  /* chroot */
    {{155, 217}, LEAVES_GAP, -1, -1, -1, 0, 0, GAP_MOUNT},                  /* pivot_root */
    {{165, 21}, LEAVES_GAP, -1, -1, -1, 0, 0, GAP_MOUNT},                   /* mount */
    {{166, 52}, LEAVES_GAP, -1, -1, -1, 0, 0, GAP_MOUNT},                   /* umount2 */
    {{-1, 22}, LEAVES_GAP, -1, -1, -1, 0, 0, GAP_MOUNT},                    /* umount */
    {{429, 429}, LEAVES_GAP, -1, -1, -1, 0, 0, GAP_MOUNT},                  /* move_mount */
    {{432, 432}, LEAVES_GAP, -1, -1, -1, 0, 0, GAP_MOUNT},                  /* fsmount */
    {{308, 346}, LEAVES_GAP, -1, -1, -1, 0, 0, GAP_NAMESPACE},              /* setns */
    {{317, 354}, FILTERS, -1, -1, -1, 0, 0, GAP_FILTER},                    /* seccomp */
    {{157, 172}, CONTROLS, -1, -1, -1, 0, 0, GAP_FILTER},                   /* prctl */
};
enum { PATH_CALL_COUNT = sizeof PATH_CALLS / sizeof *PATH_CALLS, NO_ARGUMENT = -1 };

#endif
