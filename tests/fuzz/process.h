/* Run product code in this process that would end its own.
 *
 * The linker lets the calls of exit and malloc in the whole program come to process.c (--wrap).
 * While `run_to_end` runs, an exit jumps back to it. Memory that is then still allocated is freed,
 * as the kernel would do. */
#ifndef TERMITE_FUZZ_PROCESS_H
#define TERMITE_FUZZ_PROCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { RETURNED = -1 };

/* libFuzzer calls this with each input. */
int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size);

/* Call `code` with `context`. Return the exit code with which it ended, or RETURNED. */
int run_to_end(void (*code)(void *), void *context);
/* Return whether `code` of run_to_end runs now. */
bool is_running(void);
/* End the running code with `code`, as an exit does. */
_Noreturn void end_run(int code);
/* Report a finding if `holds` is false. */
void expect(bool holds, const char *what);
/* Return a copy of exactly `size` bytes, which the address sanitizer guards. The caller frees
 * it. */
char *guarded_copy(const void *bytes, size_t size);

#endif
