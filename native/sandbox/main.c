/* termite-sandbox: `serve` makes the sandboxes of a mirror's jobs, `remove` removes what they leave, `enter` starts a
 * mirror process, `deny` runs a program with a job's filter of system calls. What every part needs is here: how failures
 * are told, and what a job is. Protocol: docs/develop/protocol.md, "Sandbox". */
#include "sandbox.h"
#include "../shared/records.h"

#include <fcntl.h>
#include <limits.h>
#include <signal.h>

static const char USAGE[] =
    "usage: termite-sandbox serve [--network] SOCKET_FD SCRATCH\n"
    "       termite-sandbox remove SCRATCH\n"
    "       termite-sandbox enter [--uid=N --gid=N] -- PROGRAM [ARGUMENT...]\n"
    "       termite-sandbox deny PROGRAM [ARGUMENT...]\n"
    "\n"
    "For termite's own use: serve makes the sandboxes of a mirror's jobs, remove removes what they leave, enter makes\n"
    "the namespaces of a mirror process, deny runs a program with a job's filter of system calls.\n";

/* -- saying what happened ------------------------------------------------------------------------------------------ */

int report = -1;

_Noreturn void end_with(const char *key, const char *text)
{
    struct buffer buffer = {0};
    record_add(&buffer, key, text);
    if (!buffer.failed)
        (void)write_whole(report, buffer.bytes, buffer.length);
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

/* -- a job --------------------------------------------------------------------------------------------------------- */

static unsigned long long number(const char *text, int base)
{
    char *stop;
    errno = 0;
    unsigned long long value = strtoull(text, &stop, base);
    if (errno || *stop || stop == text || *text == '-')
        fail("the configuration has a bad number");
    return value;
}

static void set_field(struct job *job, const char *key, char *value)
{
    const struct {
        const char *key;
        char **field;
    } texts[] = {
        {"mount", &job->mount}, {"lower", &job->lower}, {"scratch", &job->scratch}, {"stdin", &job->standard_input},
        {"cwd", &job->cwd},     {"exe", &job->exe},     {"hostname", &job->hostname},
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (strcmp(key, texts[i].key) == 0)
            *texts[i].field = value;
    if (strcmp(key, "uid") == 0)
        job->uid = (long)number(value, 10);
    else if (strcmp(key, "gid") == 0)
        job->gid = (long)number(value, 10);
    else if (strcmp(key, "umask") == 0)
        job->mask = (mode_t)number(value, 8);
    else if (strcmp(key, "root") == 0)
        job->keeps_root = number(value, 10);
    else if (strcmp(key, "search") == 0)
        job->search = number(value, 10);
    else if (strcmp(key, "stdin_offset") == 0)
        job->stdin_offset = (long long)number(value, 10);
    else if (strcmp(key, "stdin_closed") == 0)
        job->no_stdin = number(value, 10);
    else if (strcmp(key, "nproc") == 0)
        job->processes = number(value, 10);
    else if (strcmp(key, "fsize") == 0)
        job->file_bytes = number(value, 10);
    else if (strcmp(key, "memory") == 0)
        job->memory_bytes = number(value, 10);
}

/* Every word of argv and env is at least a record, so this many pointers are enough for each. */
static size_t count_records(const struct buffer *config)
{
    size_t count = 0;
    for (size_t i = 0; i < config->length; i++)
        count += config->bytes[i] == '\0';
    return count;
}

struct job parse_job(const struct buffer *config)
{
    size_t most = count_records(config) + 1, words = 0, entries = 0;
    struct job job = {.uid = -1, .gid = -1, .mask = 022};
    job.argv = calloc(most, sizeof *job.argv);
    job.env = calloc(most, sizeof *job.env);
    if (!job.argv || !job.env)
        fail_errno("cannot read the configuration", "");
    char *cursor = config->bytes, *end = config->bytes + config->length, *key, *value;
    bool malformed = false;
    while (record_next(&cursor, end, &key, &value, &malformed)) {
        if (strcmp(key, "arg") == 0)
            job.argv[words++] = value;
        else if (strcmp(key, "env") == 0)
            job.env[entries++] = value;
        else
            set_field(&job, key, value);
    }
    if (malformed || !job.mount || !job.lower || !job.scratch || !job.cwd || !job.exe || words == 0 || job.uid < 0 ||
        job.gid < 0)
        fail("the configuration is incomplete");
    return job;
}

/* -- */

static bool parse_fd(const char *text, int *fd)
{
    char *stop;
    long value = strtol(text, &stop, 10);
    *fd = (int)value;
    return *text && !*stop && value >= 0 && value <= INT_MAX && fcntl(*fd, F_GETFD) >= 0;
}

int main(int argc, char **argv)
{
    int fd;
    signal(SIGCHLD, SIG_DFL); /* ignored, it would reap our children for us */
    bool network = argc > 2 && strcmp(argv[2], "--network") == 0;
    if (argc == 4 + network && strcmp(argv[1], "serve") == 0 && parse_fd(argv[2 + network], &fd))
        return serve(fd, argv[3 + network], network);
    if (argc == 3 && strcmp(argv[1], "remove") == 0)
        return remove_listed(argv[2]);
    if (argc > 2 && strcmp(argv[1], "enter") == 0)
        return enter(argv + 2);
    if (argc > 2 && strcmp(argv[1], "deny") == 0)
        return deny(argv + 2);
    bool help = argc == 2 && strcmp(argv[1], "--help") == 0;
    (void)write_whole(help ? STDOUT_FILENO : STDERR_FILENO, USAGE, sizeof USAGE - 1);
    return help ? 0 : EXIT_FAILED;
}
