/* Report a failure to the mirror, and end this process.
 *
 * Each process of a sandbox reports to a descriptor of its own:
 *
 * - `serve` reports to the mirror's socket.
 * - Pid 1 of a job reports to the job's channel.
 * - The process that becomes the command reports to a pipe of pid 1. */
#include "sandbox.h"

#include <limits.h>

int report_fd = -1;

_Noreturn void end_with(const char *key, const char *text)
{
    struct buffer buffer = {0};
    field_add(&buffer, key, text);
    if (!buffer.failed)
        (void)write_whole(report_fd, buffer.bytes, buffer.length);
    _exit(EXIT_FAILED);
}

_Noreturn void fail(const char *text)
{
    end_with("error", text);
}

_Noreturn void fail_errno(const char *what, const char *subject)
{
    int failure = errno;
    char text[PATH_MAX + 256];
    snprintf(text, sizeof text, "%s%s%s: %s", what, *subject ? " " : "", subject, strerror(failure));
    fail(text);
}
