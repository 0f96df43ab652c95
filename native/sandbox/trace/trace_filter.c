/* Build and install the filter of a traced job: it stops at each call that names a path, and at
 * each watched call, until pid 1 of the job has answered.
 *
 * A process has one listener at most. Therefore the sandboxes of traced jobs come from a `serve`
 * whose own filter has none, and this filter watches all calls for which that of other jobs has
 * a listener. The filter of `serve` still denies what no build needs: the kernel takes its error
 * before it asks a listener. The calls of x32, io_uring and handles of files end there.
 *
 * Both programs are built once, before the sandboxes are forked. */
#include "../protection/filter_steps.h"
#include "path_calls.h"

#include <fcntl.h>
#include <linux/audit.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#ifndef SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV /* of Linux 5.19 */
#define SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (1UL << 5)
#endif
#ifndef SECCOMP_IOCTL_NOTIF_SET_FLAGS /* of Linux 6.6 */
#define SECCOMP_IOCTL_NOTIF_SET_FLAGS SECCOMP_IOW(4, uint64_t)
#define SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP (1UL << 0)
#endif

enum { CALLS_MAX = 512, PATH_FLAGS = 3 /* the argument of newfstatat(2) */, REALPATH_BYTES = 1023 };
enum { READLINK = 89, NEWFSTATAT = 262 }; /* of x86-64 */

static struct filter traced, watched;
static bool is_for_compilers;

/* -- the program --------------------------------------------------------------------------------------------------- */

/* Append a step that asks the listener. */
static void ask(struct filter *filter)
{
    add(filter, (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF));
}

/* Append the steps for a call that names a path. Compilers ask for the target of each directory
 * above each header (realpath of glibc has this size of buffer), and for the attributes of files
 * that they have opened. All of this is known from the names that they open. */
static void judge_traced(struct filter *filter, const void *found)
{
    const struct path_call *call = found;
    if (call->how == CONTROLS || call->how == FILTERS) {
        load_argument(filter, 0, 0);
        size_t installs = skip_unless(filter, BPF_JEQ, call->how == CONTROLS ? PR_SET_SECCOMP : SECCOMP_SET_MODE_FILTER);
        ask(filter);
        skip_to_here(filter, installs);
        allow(filter);
    } else if (is_for_compilers && call->numbers[0] == READLINK) {
        load_argument(filter, 2, 0);
        allow_if(filter, REALPATH_BYTES);
    } else if (is_for_compilers && call->numbers[0] == NEWFSTATAT) {
        load_argument(filter, PATH_FLAGS, 0);
        size_t is_descriptor = skip_unless(filter, BPF_JSET, AT_EMPTY_PATH);
        load_argument(filter, 0, 0);
        size_t is_directory = skip_unless(filter, BPF_JEQ, (uint32_t)AT_FDCWD);
        ask(filter);
        skip_to_here(filter, is_directory);
        allow(filter);
        skip_to_here(filter, is_descriptor);
    }
    ask(filter);
}

/* A call for which the filter searches: one of the two is NULL, or both are set. */
struct found {
    const struct path_call *traced;
    const void *watched;
};

/* The calls from number `first` on, up to the next span. NULL: they are allowed. */
struct span {
    uint32_t first;
    const struct found *found;
};

/* Return whether the listener is asked about a call, whatever its arguments are. */
static bool is_always_asked(const struct found *found)
{
    const struct path_call *call = found->traced;
    bool is_judged_for_compilers = call && (call->numbers[0] == READLINK || call->numbers[0] == NEWFSTATAT);
    return call && call->how != CONTROLS && call->how != FILTERS && !(is_for_compilers && is_judged_for_compilers);
}

/* Divide all numbers into spans. Neighbours about which the listener is always asked share one.
 * Return the number of spans. */
static size_t divide(const struct sought *sorted, size_t count, struct span *spans)
{
    size_t made = 0;
    uint32_t next = 0;
    spans[made++] = (struct span){0, NULL};
    for (size_t i = 0; i < count; i++) {
        const struct found *found = sorted[i].call, *last = spans[made - 1].found;
        uint32_t number = (uint32_t)sorted[i].number;
        bool is_neighbour = number == next && last && is_always_asked(last) && is_always_asked(found);
        if (number > next && spans[made - 1].found)
            spans[made++] = (struct span){next, NULL};
        if (!is_neighbour)
            spans[made++] = (struct span){number, found};
        next = number + 1;
    }
    spans[made++] = (struct span){next, NULL};
    return made;
}

/* Append a binary search for the span of the loaded number. The kernel compiles the filter for
 * each job, so that it has as few steps as possible: a comparison jumps by itself if it can jump
 * so far. */
static void find_span(struct filter *filter, const struct span *spans, size_t count)
{
    if (count == 1) {
        const struct found *found = spans[0].found;
        if (!found)
            allow(filter);
        else if (found->traced)
            judge_traced(filter, found->traced);
        else
            judge_watched(filter, found->watched);
        return;
    }
    size_t half = count / 2, place = filter->count;
    add(filter, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, spans[half].first, 0, 0));
    find_span(filter, spans, half);
    size_t skipped = filter->count - place - 1;
    if (skipped > UINT8_MAX)
        add(filter, filter->steps[filter->count - 1]); /* makes room for a jump */
    if (filter->is_too_long)
        return;
    if (skipped <= UINT8_MAX) {
        filter->steps[place].jt = (uint8_t)skipped;
    } else {
        memmove(filter->steps + place + 2, filter->steps + place + 1, skipped * sizeof *filter->steps);
        filter->steps[place].jf = 1;
        filter->steps[place + 1] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JA, (uint32_t)skipped, 0, 0);
    }
    find_span(filter, spans + half, count - half);
}

/* Append the search in the table of x86-64 (`table` 0) or i386 (1). */
static void find_in(struct filter *filter, int table)
{
    struct sought sorted[CALLS_MAX], judged[CALLS_MAX];
    struct found all[CALLS_MAX];
    struct span spans[2 * CALLS_MAX];
    bool is_traced[CALLS_MAX] = {false};
    size_t count = 0, others = list_watched(filter, table == 0, judged);
    for (size_t i = 0; i < PATH_CALL_COUNT; i++) {
        int number = PATH_CALLS[i].numbers[table];
        if (number < 0)
            continue;
        is_traced[number] = true;
        all[count] = (struct found){.traced = &PATH_CALLS[i]};
        insert(sorted, count, number, &all[count]);
        count++;
    }
    for (size_t i = 0; i < others; i++) {
        if (is_traced[judged[i].number])
            continue;
        all[count] = (struct found){.watched = judged[i].call};
        insert(sorted, count, judged[i].number, &all[count]);
        count++;
    }
    load(filter, offsetof(struct seccomp_data, nr));
    find_span(filter, spans, divide(sorted, count, spans));
}

const char *make_trace_filter(bool for_compilers, const struct ids *own)
{
#ifdef __x86_64__
    is_for_compilers = for_compilers;
    traced = (struct filter){.own = own, .has_listener = true};
    load(&traced, offsetof(struct seccomp_data, arch));
    size_t is_native = skip_unless(&traced, BPF_JEQ, AUDIT_ARCH_X86_64);
    find_in(&traced, 0);
    skip_to_here(&traced, is_native);
    size_t is_compat = skip_unless(&traced, BPF_JEQ, AUDIT_ARCH_I386);
    find_in(&traced, 1);
    skip_to_here(&traced, is_compat);
    allow(&traced);
    return traced.is_too_long || !make_watch_filter(&watched, own) ? "the filter of traced jobs is too long" : NULL;
#else
    return "there is no table of system calls for this machine";
#endif
}

int install_trace_filter(void)
{
    struct sock_fprog program = {.len = (unsigned short)traced.count, .filter = traced.steps};
    unsigned long flags = SECCOMP_FILTER_FLAG_SPEC_ALLOW | SECCOMP_FILTER_FLAG_NEW_LISTENER |
                          SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    int listener = (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
    if (listener >= 0) /* both sides then stay on one core, which halves the cost; older kernels refuse */
        (void)ioctl(listener, SECCOMP_IOCTL_NOTIF_SET_FLAGS, SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP);
    return listener;
}

/* -- the watched calls --------------------------------------------------------------------------------------------- */

/* The filter of a traced job asks about some calls whatever their arguments are. The filter of
 * other jobs knows which of them are watched, and is run here. */
bool is_watched_now(const struct seccomp_data *call)
{
    uint32_t loaded = 0;
    for (size_t place = 0; place < watched.count; place++) {
        const struct sock_filter *step = &watched.steps[place];
        switch (step->code) {
        case BPF_LD | BPF_W | BPF_ABS:
            memcpy(&loaded, (const char *)call + step->k, sizeof loaded);
            break;
        case BPF_ALU | BPF_AND | BPF_K:
            loaded &= step->k;
            break;
        case BPF_JMP | BPF_JA:
            place += step->k;
            break;
        case BPF_JMP | BPF_JEQ | BPF_K:
            place += loaded == step->k ? step->jt : step->jf;
            break;
        case BPF_JMP | BPF_JGE | BPF_K:
            place += loaded >= step->k ? step->jt : step->jf;
            break;
        case BPF_JMP | BPF_JSET | BPF_K:
            place += loaded & step->k ? step->jt : step->jf;
            break;
        default: /* it returns; no other steps exist */
            return step->k == SECCOMP_RET_USER_NOTIF;
        }
    }
    return false;
}
