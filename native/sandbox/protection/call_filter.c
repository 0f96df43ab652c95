/* Build and install the filter of system calls that no job gets past. `serve` installs it once;
 * every sandbox inherits it.
 *
 * No build needs the calls of the table below. Through these parts of the kernel other programs of
 * the machine are attacked:
 *
 * - keys of the worker's session, and io_uring, whose operations pass every filter
 * - userfaultfd, BPF, performance counters, and handles of files
 * - kernel modules, and the kernel's log
 * - sockets of unusual families and protocols. A VSOCK socket, for example, reaches the hypervisor
 *   from every network namespace, and for an SCTP socket the kernel loads a module
 * - firewalls: a job is privileged in network namespaces of its own
 * - line disciplines of terminals, which are drivers of modems
 *
 * The error of a denied call is one of these:
 *
 * - ENOSYS if a kernel can be built without the call, and programs fall back without it: io_uring,
 *   userfaultfd, keys. crun and runc continue if keyctl fails with ENOSYS, and give up at EPERM.
 * - EPERM otherwise: a user without privilege gets this error from the kernel itself.
 * - EAFNOSUPPORT, ESOCKTNOSUPPORT or EPROTONOSUPPORT for a family, type or protocol of sockets,
 *   ENOPROTOOPT for a firewall, EINVAL for a line discipline: a kernel without them answers so.
 *
 * Other rules:
 *
 * - Even a new keyring is denied: two hundred of them use up the quota of the worker's user, who
 *   then can start no new mirror. `enter` leaves the session's keyring before the filter exists.
 * - i386's socketcall(2) has its arguments in memory, which a filter cannot read. Its SOCKET,
 *   SOCKETPAIR and SETSOCKOPT end with ENOSYS, else `int $0x80` would be a way around the table.
 *   socket(2) of i386 works. A 32-bit C library that only uses socketcall (Debian's glibc) cannot
 *   make any socket.
 * - x32's calls end with ENOSYS, as on a kernel without x32. The number -1 passes, because a tracer
 *   skips a call with it.
 * - A call from an unknown architecture ends with ENOSYS.
 *
 * The watched calls are those that a job cannot make as its submitter could: to give something to
 * another user, and to set attributes. `serve` listens for them, and decides (watched_calls.c). A
 * kernel allows one listener for each process. If the worker runs below another one, an ordinary
 * user's change of an owner ends with EPERM, and other watched calls are left to the kernel. The
 * worker then says that its jobs are not watched. A filter that is too long is never replaced by a
 * shorter one: it is a bug of this file, and no job runs.
 *
 * Few calls are judged by their arguments. For every other number the answer is known when the
 * filter is installed. Since Linux 5.11 the kernel therefore keeps a bit for each allowed call, and
 * does not run the filter for it. Keep this in mind when you add a rule. */
#include "../sandbox.h"
#include "call_table.h"
#include "filter_steps.h"
#include "socket_rules.h"

#include <endian.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>

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

enum { X32_BIT = 0x40000000 };
enum { MODE_BYTES = 28 /* of an access control list with three entries */, SHORT_MASK = 0xffff };

/* Allow all requests to devices but that for another line discipline. */
static void allow_other_requests(struct filter *filter, int error)
{
    load_argument(filter, 1, 0);
    end_if(filter, BPF_JEQ, TIOCSETD, error);
    allow(filter);
}

/* Append the answer to a watched call. */
static void watch(struct filter *filter, int error)
{
    if (filter->has_listener)
        add(filter, (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF));
    else
        end_with_error(filter, error);
}

/* Watch the call unless this argument is the submitter's own id, or -1, which changes nothing. */
static void watch_foreign_id(struct filter *filter, const struct judged *call, int argument, uint32_t own)
{
    load_argument(filter, (size_t)argument, 0);
    if (call->is_short)
        add(filter, (struct sock_filter)BPF_STMT(BPF_ALU | BPF_AND | BPF_K, SHORT_MASK));
    add(filter, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, own, 2, 0));
    add(filter, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call->is_short ? SHORT_MASK : UINT32_MAX, 1, 0));
    watch(filter, call->error);
}

/* Watch the call if it asks for a listener of its own, which the kernel would refuse. */
static void watch_listening(struct filter *filter, const struct judged *call)
{
    load_argument(filter, 0, 0);
    size_t installs = skip_unless(filter, BPF_JEQ, SECCOMP_SET_MODE_FILTER);
    load_argument(filter, 1, 0);
    size_t listens = skip_unless(filter, BPF_JSET, SECCOMP_FILTER_FLAG_NEW_LISTENER);
    watch(filter, call->error);
    skip_to_here(filter, installs);
    skip_to_here(filter, listens);
}

/* Watch the call if it makes a device. */
static void watch_device(struct filter *filter, const struct judged *call)
{
    load_argument(filter, (size_t)call->first, 0);
    add(filter, (struct sock_filter)BPF_STMT(BPF_ALU | BPF_AND | BPF_K, S_IFMT));
    add(filter, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, S_IFCHR, 2, 0));
    size_t is_block = skip_unless(filter, BPF_JEQ, S_IFBLK);
    watch(filter, call->error);
    skip_to_here(filter, is_block);
}

void judge_watched(struct filter *filter, const void *found)
{
    const struct judged *call = found;
    for (int i = 0; i < call->count && call->rule <= BUT_OWN_GROUP; i++) {
        bool is_group = call->rule == BUT_OWN_GROUP || (call->rule == BUT_OWN_USER_AND_GROUP && i == 1);
        watch_foreign_id(filter, call, call->first + i, is_group ? filter->own->gid : filter->own->uid);
    }
    if (call->rule == BUT_MODES) {
        load_argument(filter, (size_t)call->first, 0);
        allow_if(filter, MODE_BYTES);
        watch(filter, call->error);
    } else if (call->rule == IF_ROOT_MAKES_DEVICE) {
        watch_device(filter, call);
    } else if (call->rule == IF_ROOT || call->rule == IF_LINKING || call->rule == IF_ASKING_SPACE ||
               call->rule == IF_ASKING_SPACE_BY_FILE) {
        watch(filter, call->error);
    } else if (call->rule == IF_IT_LISTENS) {
        watch_listening(filter, call);
    }
    allow(filter);
}

/* Append the steps for a call that the table has. */
static void judge(struct filter *filter, const void *found)
{
    const struct judged *call = found;
    if (call->rule >= BUT_OWN_USER_AND_GROUP) {
        judge_watched(filter, call);
        return;
    }
    if (call->rule == BUT_USUAL_FAMILIES)
        allow_usual_families(filter);
    else if (call->rule == BUT_OTHER_SOCKETCALLS)
        allow_other_socketcalls(filter, call->error);
    else if (call->rule == BUT_OTHER_OPTIONS)
        allow_other_options(filter, call->error);
    else if (call->rule == BUT_OTHER_REQUESTS)
        allow_other_requests(filter, call->error);
    end_with_error(filter, call->error);
}

/* Return whether the filter judges this call. */
static bool is_judged(const struct filter *filter, const struct judged *call)
{
    if (call->rule < BUT_OWN_USER_AND_GROUP)
        return true;
    bool is_of_root = call->rule == IF_ROOT || call->rule == IF_ROOT_MAKES_DEVICE;
    if (!filter->own || (is_of_root && filter->own->uid != 0))
        return false;
    return filter->has_listener || (call->error && filter->own->uid != 0);
}

size_t list_watched(const struct filter *filter, bool is_native, struct sought *calls)
{
    const struct machine *machine = this_machine();
    size_t count = 0;
    for (size_t i = 0; machine && i < JUDGED_COUNT; i++) {
        int number = JUDGED[i].numbers[is_native ? machine->native : machine->compat];
        if (number != NONE && JUDGED[i].rule >= BUT_OWN_USER_AND_GROUP && is_judged(filter, &JUDGED[i]))
            calls[count++] = (struct sought){number, &JUDGED[i]};
    }
    return count;
}

/* Append the search in one table, with the calls in the order of their numbers. */
static void find_in_table(struct filter *filter, enum table table)
{
    struct sought sorted[JUDGED_COUNT];
    size_t count = 0;
    for (size_t i = 0; i < JUDGED_COUNT; i++)
        if (JUDGED[i].numbers[table] != NONE && is_judged(filter, &JUDGED[i]))
            insert(sorted, count++, JUDGED[i].numbers[table], &JUDGED[i]);
    load(filter, offsetof(struct seccomp_data, nr));
    if (table == X86_64) {
        size_t is_x32 = skip_unless(filter, BPF_JGE, X32_BIT);
        allow_if(filter, UINT32_MAX);
        end_with_error(filter, ENOSYS);
        skip_to_here(filter, is_x32);
    }
    find(filter, sorted, count, judge);
}

/* Make the filter of a machine. Return false if it is too long: then the table has outgrown this
 * code. */
static bool make_filter(struct filter *filter, const struct machine *machine, const struct ids *own, bool has_listener)
{
    *filter = (struct filter){.own = own, .has_listener = has_listener};
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

bool make_watch_filter(struct filter *filter, const struct ids *own)
{
    const struct machine *machine = this_machine();
    return machine && make_filter(filter, machine, own, true);
}

enum watched watched_call(uint32_t arch, int number)
{
    const struct machine *machine = this_machine();
    for (size_t i = 0; machine && i < JUDGED_COUNT; i++) {
        if (JUDGED[i].numbers[arch == machine->native_arch ? machine->native : machine->compat] != number)
            continue;
        switch (JUDGED[i].rule) {
        case BUT_OWN_USER_AND_GROUP:
            return JUDGED[i].first == 1 ? CHANGES_OWNER : CHANGES_OWNER_AT;
        case BUT_OWN_USER:
        case BUT_OWN_GROUP:
        case IF_ROOT:
            return CHANGES_IDS;
        case BUT_MODES:
            return JUDGED[i].first == 3 ? SETS_ATTRIBUTE : SETS_ATTRIBUTE_AT;
        case IF_IT_LISTENS:
            return LISTENS;
        case IF_LINKING:
            return JUDGED[i].first == 0 ? LINKS : LINKS_AT;
        case IF_ASKING_SPACE:
            return ASKS_SPACE;
        case IF_ASKING_SPACE_BY_FILE:
            return ASKS_SPACE_BY_FILE;
        case IF_ROOT_MAKES_DEVICE:
            return MAKES_DEVICE;
        default:
            return NOT_WATCHED;
        }
    }
    return NOT_WATCHED;
}

/* Install the filter. Return 0, or a descriptor of its listener, or -1 with errno, which is E2BIG
 * if the filter is too long. */
static int install(const struct machine *machine, const struct ids *own, bool has_listener)
{
    struct filter filter;
    if (!make_filter(&filter, machine, own, has_listener)) {
        errno = E2BIG;
        return -1;
    }
    struct sock_fprog program = {.len = (unsigned short)filter.count, .filter = filter.steps};
    /* Without this flag, kernels before 5.16 turn on a mitigation that slows every job down. The
     * same program does not have it outside of a sandbox. */
    unsigned long flags = SECCOMP_FILTER_FLAG_SPEC_ALLOW;
    if (has_listener)
        flags |= SECCOMP_FILTER_FLAG_NEW_LISTENER;
    return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
}

struct denial deny_calls(const struct ids *own)
{
    struct denial done = {.listener = -1};
    const struct machine *machine = this_machine();
    if (!machine) {
        snprintf(done.unfiltered, sizeof done.unfiltered, "there is no filter of system calls for this machine");
        return done;
    }
    if (own && (done.listener = install(machine, own, true)) >= 0)
        return done;
    done.is_too_long = own && errno == E2BIG;
    if (own && !done.is_too_long)
        snprintf(done.unwatched, sizeof done.unwatched, "cannot listen to system calls: %s", strerror(errno));
    if (!done.is_too_long && install(machine, own, false) < 0) {
        done.is_too_long = errno == E2BIG;
        snprintf(done.unfiltered, sizeof done.unfiltered, "cannot install the filter of system calls: %s",
                 strerror(errno));
    }
    return done;
}

/* Tests use this, and `termite-ctl doctor`, to find out whether this machine supports the
 * filter. */
int deny(char **program)
{
    struct denial done = deny_calls(NULL);
    if (*done.unfiltered) {
        dprintf(STDERR_FILENO, "termite-sandbox: %s\n", done.unfiltered);
        return EXIT_FAILED;
    }
    execvp(program[0], program);
    dprintf(STDERR_FILENO, "termite-sandbox: %s: %s\n", program[0], strerror(errno));
    return EXIT_FAILED;
}

/* `termite-ctl doctor` uses this. The ids do not matter. */
int print_watch(void)
{
    const struct ids own = {.uid = 1, .gid = 1};
    struct denial done = deny_calls(&own);
    if (done.is_too_long)
        snprintf(done.unwatched, sizeof done.unwatched, "the filter of system calls is too long");
    const char *failure = *done.unwatched ? done.unwatched : done.unfiltered;
    if (*failure)
        dprintf(STDERR_FILENO, "termite-sandbox: %s\n", failure);
    return *failure ? EXIT_FAILED : 0;
}
