/* Put a filter of system calls together from single steps, for call_filter.c alone. */
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

/* Append a comparison with the loaded value, and return a place for `skip_to_here`. If it is false,
 * the steps up to there are skipped: by a step of its own, because a comparison cannot jump far. */
static size_t skip_unless(struct filter *filter, int comparison, uint32_t value)
{
    add(filter, (struct sock_filter)BPF_JUMP((uint16_t)(BPF_JMP | comparison | BPF_K), value, 1, 0));
    return add(filter, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JA, 0, 0, 0));
}

/* Let the comparison at `place` jump to the next step if it is false. */
static void skip_to_here(struct filter *filter, size_t place)
{
    filter->steps[place].k = (uint32_t)(filter->count - place - 1);
}

/* Allow the call if the loaded value is `value`. */
static void allow_if(struct filter *filter, uint32_t value)
{
    size_t comparison = skip_unless(filter, BPF_JEQ, value);
    allow(filter);
    skip_to_here(filter, comparison);
}

/* End the call with an error if the loaded value compares to `value` like this. */
static void end_if(struct filter *filter, int comparison, uint32_t value, int error)
{
    size_t place = skip_unless(filter, comparison, value);
    end_with_error(filter, error);
    skip_to_here(filter, place);
}

#endif
