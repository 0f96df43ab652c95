/* Parse any bytes as the fields of an order (native/sandbox/order.c). */
#include "../process.h"
#include "../../../native/sandbox/sandbox.h"

#include <limits.h>

ssize_t __real_write(int fd, const void *bytes, size_t length);
ssize_t __wrap_write(int fd, const void *bytes, size_t length);

static struct job job;

/* Take the report of a refusal, which must be one field. */
ssize_t __wrap_write(int fd, const void *bytes, size_t length)
{
    if (!is_running())
        return __real_write(fd, bytes, length);
    const char *report = bytes;
    expect(length > 6 && memcmp(report, "error=", 6) == 0, "a refusal is reported as an error");
    expect(memchr(report, '\0', length) == report + length - 1, "a report is one field");
    return (ssize_t)length;
}

static void parse(void *config)
{
    job = parse_job(config);
}

/* Check that no part of a list of layers leads out of the mount's parent. */
static void check_layers(const char *lower)
{
    expect(!strchr(lower, ','), "layers have no comma");
    for (const char *up = lower; (up = strstr(up, "..")); up += 2) {
        bool begins = up == lower || up[-1] == '/' || up[-1] == ':';
        bool ends = up[2] == '\0' || up[2] == '/' || up[2] == ':';
        bool is_first = up == lower || up[-1] == ':';
        expect(!(begins && ends) || (is_first && up[2] == '/'), "layers have one ../ at most, at their start");
    }
}

static void check_job(void)
{
    size_t length = 0;
    expect(job.argv[0] != NULL, "a job has a command");
    for (char **word = job.argv; *word; word++)
        length += strlen(*word);
    for (char **entry = job.env; *entry; entry++)
        length += strlen(*entry);
    expect(job.mount[0] == '/' && job.scratch[0] == '/' && job.cwd[0] == '/', "paths are absolute");
    check_layers(job.lower);
    length += strlen(job.exe) + (job.hostname ? strlen(job.hostname) : 0);
    length += job.standard_input ? strlen(job.standard_input) : 0;
    expect(length < INT_MAX, "all texts end");
    expect(job.uid >= 0 && job.uid < UINT_MAX && job.gid >= 0 && job.gid < UINT_MAX, "ids are no -1");
    expect(job.stdin_offset >= 0 && (job.mask & ~0777u) == 0 && job.terminals <= ALL_TERMINALS,
           "numbers are within their limits");
}

static void parse_and_check(void *config)
{
    parse(config);
    check_job();
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
    char *bytes = guarded_copy(input, size);
    struct buffer config = {.bytes = bytes, .length = size, .capacity = size};
    int code = run_to_end(parse_and_check, &config);
    expect(code == RETURNED || code == EXIT_FAILED, "a bad order ends the sandbox with its exit code");
    free(bytes);
    return 0;
}
