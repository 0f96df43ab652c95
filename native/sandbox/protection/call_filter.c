/* Build and install the filter of system calls that no job gets past. `serve` installs it once;
 * every sandbox inherits it.
 *
 * No build needs the calls of the table below. Through these parts of the kernel other programs of
 * the machine are attacked:
 *
 * - keys of the worker's session, and io_uring, whose operations pass every filter
 * - userfaultfd, BPF, performance counters, and handles of files
 * - kernel modules, and the kernel's log
 * - sockets of unusual families; a VSOCK socket, for example, reaches the hypervisor from every
 *   network namespace
 *
 * The error of a denied call is one of these:
 *
 * - ENOSYS if a kernel can be built without the call, and programs fall back without it: io_uring,
 *   userfaultfd, keys. crun and runc continue if keyctl fails with ENOSYS, and give up at EPERM.
 * - EPERM otherwise: a user without privilege gets this error from the kernel itself.
 * - EAFNOSUPPORT for a family of sockets: a kernel without that family answers so.
 *
 * Other rules:
 *
 * - Even a new keyring is denied: two hundred of them use up the quota of the worker's user, who
 *   then can start no new mirror. `enter` leaves the session's keyring before the filter exists.
 * - i386's socketcall(2) has the family in memory, which a filter cannot read. Its SOCKET and
 *   SOCKETPAIR end with ENOSYS, else `int $0x80` would be a way around the table. socket(2) of i386
 *   works. A 32-bit C library that only uses socketcall (Debian's glibc) cannot make any socket.
 * - x32's calls end with ENOSYS, as on a kernel without x32. The number -1 passes, because a tracer
 *   skips a call with it.
 * - A call from an unknown architecture ends with ENOSYS.
 * - The filter has no listener, so that a job can still be given a filter that has one.
 *
 * Only socket, socketpair and socketcall are judged by their arguments. For every other
 * number the answer is known when the filter is installed. Since Linux 5.11 the kernel therefore
 * keeps a bit for each allowed call, and does not run the filter for it. Keep this in mind when you
 * add a rule. */
#include "../sandbox.h"

#include <endian.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/net.h>
#include <linux/netlink.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/syscall.h>

/* -- the denied calls ---------------------------------------------------------------------------------------------- */

enum rule { ALWAYS, BUT_USUAL_FAMILIES, BUT_OTHER_SOCKETCALLS };
enum table { X86_64, I386, ARM64, ARM, TABLES };
enum { NONE = -1 }; /* this architecture does not have the call */

/* The table has numbers, because a header has only the names of its own architecture, and an old
 * one lacks some. */
static const struct denied {
    int numbers[TABLES];
    int error;
    enum rule rule;
} DENIED[] = {
    /* x86-64, i386, arm64, arm */
    {{41, 359, 198, 281}, EAFNOSUPPORT, BUT_USUAL_FAMILIES},   /* socket */
    {{53, 360, 199, 288}, EAFNOSUPPORT, BUT_USUAL_FAMILIES},   /* socketpair */
    {{NONE, 102, NONE, NONE}, ENOSYS, BUT_OTHER_SOCKETCALLS},  /* socketcall */
    {{248, 286, 217, 309}, ENOSYS, ALWAYS},                    /* add_key */
    {{249, 287, 218, 310}, ENOSYS, ALWAYS},                    /* request_key */
    {{250, 288, 219, 311}, ENOSYS, ALWAYS},                    /* keyctl */
    {{323, 374, 282, 388}, ENOSYS, ALWAYS},                    /* userfaultfd */
    {{425, 425, 425, 425}, ENOSYS, ALWAYS},                    /* io_uring_setup */
    {{426, 426, 426, 426}, ENOSYS, ALWAYS},                    /* io_uring_enter */
    {{427, 427, 427, 427}, ENOSYS, ALWAYS},                    /* io_uring_register */
    {{321, 357, 280, 386}, EPERM, ALWAYS},                     /* bpf */
    {{298, 336, 241, 364}, EPERM, ALWAYS},                     /* perf_event_open */
    {{300, 338, 262, 367}, EPERM, ALWAYS},                     /* fanotify_init */
    {{304, 342, 265, 371}, EPERM, ALWAYS},                     /* open_by_handle_at */
    {{103, 103, 116, 103}, EPERM, ALWAYS},                     /* syslog */
    {{246, 283, 104, 347}, EPERM, ALWAYS},                     /* kexec_load */
    {{320, NONE, 294, 401}, EPERM, ALWAYS},                    /* kexec_file_load */
    {{175, 128, 105, 128}, EPERM, ALWAYS},                     /* init_module */
    {{313, 350, 273, 379}, EPERM, ALWAYS},                     /* finit_module */
    {{176, 129, 106, 129}, EPERM, ALWAYS},                     /* delete_module */
};
enum { DENIED_COUNT = sizeof DENIED / sizeof *DENIED };

/* A machine has one table for its own programs, and one for 32-bit programs. */
enum { X86_MACHINE, ARM_MACHINE };
static const struct machine {
    uint32_t native_arch, compat_arch;
    enum table native, compat;
} MACHINES[] = {
    [X86_MACHINE] = {AUDIT_ARCH_X86_64, AUDIT_ARCH_I386, X86_64, I386},
    [ARM_MACHINE] = {AUDIT_ARCH_AARCH64, AUDIT_ARCH_ARM, ARM64, ARM},
};

/* Return the machine for which this program was built, or NULL if it has no table. */
static const struct machine *this_machine(void)
{
#if defined(__x86_64__) && __BYTE_ORDER == __LITTLE_ENDIAN
    return &MACHINES[X86_MACHINE];
#elif defined(__aarch64__) && __BYTE_ORDER == __LITTLE_ENDIAN
    return &MACHINES[ARM_MACHINE];
#else
    return NULL;
#endif
}

/* -- the program --------------------------------------------------------------------------------------------------- */

enum { STEPS_MAX = 512, FARTHEST_JUMP = 255, X32_BIT = 0x40000000, TYPE_MASK = 0xf };

struct filter {
    struct sock_filter steps[STEPS_MAX];
    size_t count;
    bool is_too_long;
};

/* Append a step and return its index. */
static size_t add(struct filter *filter, struct sock_filter step)
{
    if (filter->count == STEPS_MAX) {
        filter->is_too_long = true;
        return 0;
    }
    filter->steps[filter->count] = step;
    return filter->count++;
}

/* Load 32 bits of the call's data at this offset. */
static void load(struct filter *filter, size_t offset)
{
    add(filter, (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)offset));
}

/* Load half of an argument. The lower half (`half` 0) is all that the kernel takes of an int; 1 is
 * the upper one. */
static void load_argument(struct filter *filter, size_t number, size_t half)
{
    load(filter, offsetof(struct seccomp_data, args) + 8 * number + 4 * half);
}

/* Append a step that allows the call. */
static void allow(struct filter *filter)
{
    add(filter, (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
}

/* Append a step that ends the call with an error. */
static void end_with_error(struct filter *filter, int error)
{
    add(filter, (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (uint32_t)error));
}

/* Append a comparison with the loaded value, and return its index. If it is false, the steps up to
 * `skip_to_here` are skipped. */
static size_t skip_unless(struct filter *filter, int comparison, uint32_t value)
{
    return add(filter, (struct sock_filter)BPF_JUMP((uint16_t)(BPF_JMP | comparison | BPF_K), value, 0, 0));
}

/* Let the comparison jump to the next step if it is false. */
static void skip_to_here(struct filter *filter, size_t comparison)
{
    size_t skipped = filter->count - comparison - 1;
    filter->is_too_long |= skipped > FARTHEST_JUMP;
    filter->steps[comparison].jf = (uint8_t)skipped;
}

/* Allow the call if the loaded value is `value`. */
static void allow_if(struct filter *filter, uint32_t value)
{
    size_t comparison = skip_unless(filter, BPF_JEQ, value);
    allow(filter);
    skip_to_here(filter, comparison);
}

/* Judge a netlink socket by its protocol; the family is loaded. In network namespaces of its own a
 * job is privileged. By other protocols it would reach firewalls, tunnels and drivers. */
static void allow_usual_netlink(struct filter *filter)
{
    size_t is_netlink = skip_unless(filter, BPF_JEQ, AF_NETLINK);
    load_argument(filter, 2, 0);
    allow_if(filter, NETLINK_ROUTE);
    allow_if(filter, NETLINK_SOCK_DIAG);
    allow_if(filter, NETLINK_KOBJECT_UEVENT);
    end_with_error(filter, EPROTONOSUPPORT);
    skip_to_here(filter, is_netlink);
}

/* Allow sockets of the families that builds use. */
static void allow_usual_families(struct filter *filter)
{
    load_argument(filter, 0, 0);
    allow_if(filter, AF_UNIX);
    allow_if(filter, AF_INET6);
    allow_usual_netlink(filter);
    size_t is_inet = skip_unless(filter, BPF_JEQ, AF_INET);
    load_argument(filter, 1, 0); /* AF_INET with this obsolete type is AF_PACKET */
    add(filter, (struct sock_filter)BPF_STMT(BPF_ALU | BPF_AND | BPF_K, TYPE_MASK));
    add(filter, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SOCK_PACKET, 1, 0));
    allow(filter);
    skip_to_here(filter, is_inet);
}

/* Allow all of socketcall but the making of sockets. */
static void allow_other_socketcalls(struct filter *filter, int error)
{
    load_argument(filter, 0, 0);
    size_t makes_one = skip_unless(filter, BPF_JEQ, SYS_SOCKET);
    end_with_error(filter, error);
    skip_to_here(filter, makes_one);
    size_t makes_two = skip_unless(filter, BPF_JEQ, SYS_SOCKETPAIR);
    end_with_error(filter, error);
    skip_to_here(filter, makes_two);
    allow(filter);
}

/* Append the steps for a call that the table has. */
static void judge(struct filter *filter, const struct denied *denied)
{
    if (denied->rule == BUT_USUAL_FAMILIES)
        allow_usual_families(filter);
    else if (denied->rule == BUT_OTHER_SOCKETCALLS)
        allow_other_socketcalls(filter, denied->error);
    end_with_error(filter, denied->error);
}

/* Append a binary search for the loaded number. A kernel that runs the filter for each call then
 * makes few comparisons. `sorted` holds the denied calls of `table`, by number. */
static void find(struct filter *filter, const struct denied *const *sorted, size_t count, enum table table)
{
    if (count > 1) {
        size_t half = count / 2;
        size_t comparison = skip_unless(filter, BPF_JGE, (uint32_t)sorted[half]->numbers[table]);
        find(filter, sorted + half, count - half, table);
        skip_to_here(filter, comparison);
        find(filter, sorted, half, table);
    } else if (count == 1) {
        size_t comparison = skip_unless(filter, BPF_JEQ, (uint32_t)sorted[0]->numbers[table]);
        judge(filter, sorted[0]);
        skip_to_here(filter, comparison);
        allow(filter);
    }
}

/* Append the search in one table, with the calls in the order of their numbers. */
static void find_in_table(struct filter *filter, enum table table)
{
    const struct denied *sorted[DENIED_COUNT];
    size_t count = 0;
    for (size_t i = 0; i < DENIED_COUNT; i++) {
        int number = DENIED[i].numbers[table];
        if (number == NONE)
            continue;
        size_t place = count++;
        for (; place > 0 && sorted[place - 1]->numbers[table] > number; place--)
            sorted[place] = sorted[place - 1];
        sorted[place] = &DENIED[i];
    }
    load(filter, offsetof(struct seccomp_data, nr));
    if (table == X86_64) {
        size_t is_x32 = skip_unless(filter, BPF_JGE, X32_BIT);
        allow_if(filter, UINT32_MAX);
        end_with_error(filter, ENOSYS);
        skip_to_here(filter, is_x32);
    }
    find(filter, sorted, count, table);
}

/* Make the filter of a machine. Return false if it is too long: then the table has outgrown this
 * code. */
static bool make_filter(struct filter *filter, const struct machine *machine)
{
    *filter = (struct filter){0};
    load(filter, offsetof(struct seccomp_data, arch));
    size_t is_native = skip_unless(filter, BPF_JEQ, machine->native_arch);
    find_in_table(filter, machine->native);
    skip_to_here(filter, is_native);
    size_t is_compat = skip_unless(filter, BPF_JEQ, machine->compat_arch);
    find_in_table(filter, machine->compat);
    skip_to_here(filter, is_compat);
    end_with_error(filter, ENOSYS);
    return !filter->is_too_long;
}

const char *deny_calls(void)
{
    const struct machine *machine = this_machine();
    struct filter filter;
    errno = ENOSYS;
    if (!machine || !make_filter(&filter, machine))
        return "there is no filter of system calls for this machine";
    struct sock_fprog program = {.len = (unsigned short)filter.count, .filter = filter.steps};
    /* Without this flag, kernels before 5.16 turn on a mitigation that slows every job down. The
     * same program does not have it outside of a sandbox. */
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_SPEC_ALLOW, &program) != 0)
        return "cannot install the filter of system calls";
    return NULL;
}

/* Tests use this, and `termite-ctl doctor`, to find out whether this machine supports the
 * filter. */
int deny(char **program)
{
    const char *failure = deny_calls();
    if (failure) {
        dprintf(STDERR_FILENO, "termite-sandbox: %s: %s\n", failure, strerror(errno));
        return EXIT_FAILED;
    }
    execvp(program[0], program);
    dprintf(STDERR_FILENO, "termite-sandbox: %s: %s\n", program[0], strerror(errno));
    return EXIT_FAILED;
}
