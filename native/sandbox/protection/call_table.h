/* List the system calls that the filter judges, for call_filter.c alone. */
#ifndef TERMITE_CALL_TABLE_H
#define TERMITE_CALL_TABLE_H

#include <errno.h>
#include <linux/audit.h>
#include <stdbool.h>
#include <stdint.h>

enum rule {
    ALWAYS,
    BUT_USUAL_FAMILIES,
    BUT_OTHER_SOCKETCALLS,
    BUT_OTHER_OPTIONS,
    BUT_OTHER_REQUESTS,
    /* These are rules of watched calls. */
    BUT_OWN_USER_AND_GROUP,
    BUT_OWN_USER,
    BUT_OWN_GROUP,
    IF_ROOT,
    IF_ROOT_MAKES_DEVICE,
    BUT_MODES, /* an access control list of three entries is a mode: `cp -p` and `install` set one */
    IF_IT_LISTENS,
    IF_LINKING, /* the listener sees every call */
    IF_ASKING_SPACE,
    IF_ASKING_SPACE_BY_FILE, /* of an open file */
};
enum table { X86_64, I386, ARM64, ARM, TABLES };
enum { NONE = -1 }; /* this architecture does not have the call */

/* The table has numbers, because a header has only the names of its own architecture, and an old
 * one lacks some. */
static const struct judged {
    int numbers[TABLES];
    int error; /* of a watched call: if there is no listener; 0: the call is allowed then */
    enum rule rule;
    int first, count; /* the arguments that are judged, of a watched call */
    bool is_short;    /* these arguments have 16 bits */
} JUDGED[] = {
    /* x86-64, i386, arm64, arm */
    {{41, 359, 198, 281}, EAFNOSUPPORT, BUT_USUAL_FAMILIES, 0, 0, false}, /* socket */
    {{53, 360, 199, 288}, EAFNOSUPPORT, BUT_USUAL_FAMILIES, 0, 0, false}, /* socketpair */
    {{NONE, 102, NONE, NONE}, ENOSYS, BUT_OTHER_SOCKETCALLS, 0, 0, false}, /* socketcall */
    {{54, 366, 208, 294}, ENOPROTOOPT, BUT_OTHER_OPTIONS, 0, 0, false}, /* setsockopt */
    {{16, 54, 29, 54}, EINVAL, BUT_OTHER_REQUESTS, 0, 0, false}, /* ioctl */
    {{248, 286, 217, 309}, ENOSYS, ALWAYS, 0, 0, false}, /* add_key */
    {{249, 287, 218, 310}, ENOSYS, ALWAYS, 0, 0, false}, /* request_key */
    {{250, 288, 219, 311}, ENOSYS, ALWAYS, 0, 0, false}, /* keyctl */
    {{323, 374, 282, 388}, ENOSYS, ALWAYS, 0, 0, false}, /* userfaultfd */
    {{425, 425, 425, 425}, ENOSYS, ALWAYS, 0, 0, false}, /* io_uring_setup */
    {{426, 426, 426, 426}, ENOSYS, ALWAYS, 0, 0, false}, /* io_uring_enter */
    {{427, 427, 427, 427}, ENOSYS, ALWAYS, 0, 0, false}, /* io_uring_register */
    {{321, 357, 280, 386}, EPERM, ALWAYS, 0, 0, false}, /* bpf */
    {{298, 336, 241, 364}, EPERM, ALWAYS, 0, 0, false}, /* perf_event_open */
    {{300, 338, 262, 367}, EPERM, ALWAYS, 0, 0, false}, /* fanotify_init */
    {{304, 342, 265, 371}, EPERM, ALWAYS, 0, 0, false}, /* open_by_handle_at */
    {{103, 103, 116, 103}, EPERM, ALWAYS, 0, 0, false}, /* syslog */
    {{246, 283, 104, 347}, EPERM, ALWAYS, 0, 0, false}, /* kexec_load */
    {{320, NONE, 294, 401}, EPERM, ALWAYS, 0, 0, false}, /* kexec_file_load */
    {{175, 128, 105, 128}, EPERM, ALWAYS, 0, 0, false}, /* init_module */
    {{313, 350, 273, 379}, EPERM, ALWAYS, 0, 0, false}, /* finit_module */
    {{176, 129, 106, 129}, EPERM, ALWAYS, 0, 0, false}, /* delete_module */

    {{92, 212, NONE, 212}, EPERM, BUT_OWN_USER_AND_GROUP, 1, 2, false},  /* chown */
    {{94, 198, NONE, 198}, EPERM, BUT_OWN_USER_AND_GROUP, 1, 2, false},  /* lchown */
    {{93, 207, 55, 207}, EPERM, BUT_OWN_USER_AND_GROUP, 1, 2, false},    /* fchown */
    {{260, 298, 54, 325}, EPERM, BUT_OWN_USER_AND_GROUP, 2, 2, false},   /* fchownat */
    {{NONE, 182, NONE, 182}, EPERM, BUT_OWN_USER_AND_GROUP, 1, 2, true}, /* chown, 16 bits */
    {{NONE, 16, NONE, 16}, EPERM, BUT_OWN_USER_AND_GROUP, 1, 2, true},   /* lchown, 16 bits */
    {{NONE, 95, NONE, 95}, EPERM, BUT_OWN_USER_AND_GROUP, 1, 2, true},   /* fchown, 16 bits */
    {{105, 213, 146, 213}, EPERM, BUT_OWN_USER, 0, 1, false},            /* setuid */
    {{113, 203, 145, 203}, EPERM, BUT_OWN_USER, 0, 2, false},            /* setreuid */
    {{117, 208, 147, 208}, EPERM, BUT_OWN_USER, 0, 3, false},            /* setresuid */
    {{NONE, 23, NONE, 23}, EPERM, BUT_OWN_USER, 0, 1, true},             /* setuid, 16 bits */
    {{NONE, 70, NONE, 70}, EPERM, BUT_OWN_USER, 0, 2, true},             /* setreuid, 16 bits */
    {{NONE, 164, NONE, 164}, EPERM, BUT_OWN_USER, 0, 3, true},           /* setresuid, 16 bits */
    {{106, 214, 144, 214}, EPERM, BUT_OWN_GROUP, 0, 1, false},           /* setgid */
    {{114, 204, 143, 204}, EPERM, BUT_OWN_GROUP, 0, 2, false},           /* setregid */
    {{119, 210, 149, 210}, EPERM, BUT_OWN_GROUP, 0, 3, false},           /* setresgid */
    {{NONE, 46, NONE, 46}, EPERM, BUT_OWN_GROUP, 0, 1, true},            /* setgid, 16 bits */
    {{NONE, 71, NONE, 71}, EPERM, BUT_OWN_GROUP, 0, 2, true},            /* setregid, 16 bits */
    {{NONE, 170, NONE, 170}, EPERM, BUT_OWN_GROUP, 0, 3, true},          /* setresgid, 16 bits */
    {{116, 206, 159, 206}, 0, IF_ROOT, 0, 0, false},                     /* setgroups */
    {{NONE, 81, NONE, 81}, 0, IF_ROOT, 0, 0, false},                     /* setgroups, 16 bits */
    {{188, 226, 5, 226}, 0, BUT_MODES, 3, 1, false},                     /* setxattr */
    {{189, 227, 6, 227}, 0, BUT_MODES, 3, 1, false},                     /* lsetxattr */
    {{190, 228, 7, 228}, 0, BUT_MODES, 3, 1, false},                     /* fsetxattr */
    {{463, 463, 463, 463}, 0, BUT_MODES, 5, 1, false},                   /* setxattrat: its size is that of a struct */
    {{86, 9, NONE, 9}, 0, IF_LINKING, 0, 1, false},                      /* link */
    {{265, 303, 37, 330}, 0, IF_LINKING, 1, 1, false},                   /* linkat */
    {{137, 99, 43, 99}, 0, IF_ASKING_SPACE, 0, 1, false},                /* statfs */
    {{NONE, 268, NONE, 266}, 0, IF_ASKING_SPACE, 0, 1, false},           /* statfs64 */
    {{138, 100, 44, 100}, 0, IF_ASKING_SPACE_BY_FILE, 0, 1, false},      /* fstatfs */
    {{NONE, 269, NONE, 267}, 0, IF_ASKING_SPACE_BY_FILE, 0, 1, false},   /* fstatfs64 */
    {{133, 14, NONE, 14}, 0, IF_ROOT_MAKES_DEVICE, 1, 1, false},         /* mknod */
    {{259, 297, 33, 324}, 0, IF_ROOT_MAKES_DEVICE, 2, 1, false},         /* mknodat */
    {{317, 354, 277, 383}, 0, IF_IT_LISTENS, 0, 2, false},               /* seccomp */
};
enum { JUDGED_COUNT = sizeof JUDGED / sizeof *JUDGED };

/* A machine has one table for its own programs, and one for 32-bit programs. */
enum { X86_MACHINE, ARM_MACHINE };
static const struct machine {
    uint32_t native_arch, compat_arch;
    enum table native, compat;
} MACHINES[] = {
    [X86_MACHINE] = {AUDIT_ARCH_X86_64, AUDIT_ARCH_I386, X86_64, I386},
    [ARM_MACHINE] = {AUDIT_ARCH_AARCH64, AUDIT_ARCH_ARM, ARM64, ARM},
};

#endif
