/* Put a filter of system calls together from single steps, for call_filter.c and trace_filter.c. */
#ifndef TERMITE_FILTER_STEPS_H
#define TERMITE_FILTER_STEPS_H

#include "../sandbox.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>

#ifndef STEPS_MAX /* a test compiles fewer */
enum { STEPS_MAX = 2048 }; /* the kernel takes 4096 */
#endif

struct filter {
    struct sock_filter steps[STEPS_MAX];
    size_t count;
    bool is_too_long;
    const struct ids *own; /* of the submitter; NULL: no calls are watched */
    bool has_listener;
};

/* A call for which a filter searches; `call` is for the function that judges it. */
struct sought {
    int number;
    const void *call;
};

/* Append a step and return its index. */
static inline size_t add(struct filter *filter, struct sock_filter step)
{
    if (filter->count == STEPS_MAX) {
        filter->is_too_long = true;
        return 0;
    }
    filter->steps[filter->count] = step;
    return filter->count++;
}

/* Load 32 bits of the call's data at this offset. */
static inline void load(struct filter *filter, size_t offset)
{
    add(filter, (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)offset));
}

/* Load half of an argument. The lower half (`half` 0) is all that the kernel takes of an int; 1 is
 * the upper one. */
static inline void load_argument(struct filter *filter, size_t number, size_t half)
{
    load(filter, offsetof(struct seccomp_data, args) + 8 * number + 4 * half);
}

/* Append a step that allows the call. */
static inline void allow(struct filter *filter)
{
    add(filter, (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
}

/* Append a step that ends the call with an error. */
static inline void end_with_error(struct filter *filter, int error)
{
    add(filter, (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (uint32_t)error));
}

/* Append a comparison with the loaded value, and return a place for `skip_to_here`. If it is false,
 * the steps up to there are skipped: by a step of its own, because a comparison cannot jump far. */
static inline size_t skip_unless(struct filter *filter, int comparison, uint32_t value)
{
    add(filter, (struct sock_filter)BPF_JUMP((uint16_t)(BPF_JMP | comparison | BPF_K), value, 1, 0));
    return add(filter, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JA, 0, 0, 0));
}

/* Let the comparison at `place` jump to the next step if it is false. */
static inline void skip_to_here(struct filter *filter, size_t place)
{
    filter->steps[place].k = (uint32_t)(filter->count - place - 1);
}

/* Allow the call if the loaded value is `value`. */
static inline void allow_if(struct filter *filter, uint32_t value)
{
    size_t comparison = skip_unless(filter, BPF_JEQ, value);
    allow(filter);
    skip_to_here(filter, comparison);
}

/* End the call with an error if the loaded value compares to `value` like this. */
static inline void end_if(struct filter *filter, int comparison, uint32_t value, int error)
{
    size_t place = skip_unless(filter, comparison, value);
    end_with_error(filter, error);
    skip_to_here(filter, place);
}

/* Insert a call into a list that is sorted by number. `count` is the length of the list before. */
static inline void insert(struct sought *sorted, size_t count, int number, const void *call)
{
    for (; count > 0 && sorted[count - 1].number > number; count--)
        sorted[count] = sorted[count - 1];
    sorted[count] = (struct sought){number, call};
}

/* Append a binary search for the loaded number. A kernel that runs the filter for each call then
 * makes few comparisons. `judge` appends the steps for a call that was found; others are
 * allowed. */
static inline void find(struct filter *filter, const struct sought *sorted, size_t count,
                        void (*judge)(struct filter *filter, const void *call))
{
    if (count > 1) {
        size_t half = count / 2;
        size_t comparison = skip_unless(filter, BPF_JGE, (uint32_t)sorted[half].number);
        find(filter, sorted + half, count - half, judge);
        skip_to_here(filter, comparison);
        find(filter, sorted, half, judge);
    } else if (count == 1) {
        size_t comparison = skip_unless(filter, BPF_JEQ, (uint32_t)sorted[0].number);
        judge(filter, sorted[0].call);
        skip_to_here(filter, comparison);
        allow(filter);
    }
}

#endif
