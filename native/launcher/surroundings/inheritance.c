/* Describe what a command inherits from this process beside its environment and standard files:
 * limits, niceness, ignored signals, and other descriptors that it names.
 *
 * Terminals, editors and CI systems leave descriptors open by mistake, in every command. A worker
 * cannot have any of them, so only one that the command names keeps it on this machine. */
#include "../launcher.h"
#include "../../shared/fields.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

/* Limits that belong to one process. Those of a user count other processes on each machine. */
static const int resources[] = {RLIMIT_CPU,  RLIMIT_FSIZE,  RLIMIT_DATA, RLIMIT_STACK,
                                RLIMIT_CORE, RLIMIT_NOFILE, RLIMIT_AS};
enum { RESOURCES = sizeof resources / sizeof *resources, LAST_SIGNAL = 31, LIMIT_BYTES = 64 };

/* -- limits, niceness, signals ------------------------------------------------------------------------------------- */

/* Write a limit to `text`: "-" is none. */
static void write_limit(char text[24], rlim_t limit)
{
    if (limit == RLIM_INFINITY)
        memcpy(text, "-", 2);
    else
        snprintf(text, 24, "%llu", (unsigned long long)limit);
}

/* Add the limits as RESOURCE:SOFT:HARD, with commas between them. */
static void add_limits(struct buffer *invoke)
{
    char text[RESOURCES * LIMIT_BYTES] = "", soft[24], hard[24];
    size_t length = 0;
    for (int i = 0; i < RESOURCES; i++) {
        struct rlimit limit;
        if (getrlimit(resources[i], &limit) != 0)
            continue;
        write_limit(soft, limit.rlim_cur);
        write_limit(hard, limit.rlim_max);
        length += (size_t)snprintf(text + length, LIMIT_BYTES, "%s%d:%s:%s", length ? "," : "", resources[i], soft, hard);
    }
    field_add(invoke, "limits", text);
}

/* Add the ignored signals: bit N - 1 stands for signal N. */
static void add_ignored(struct buffer *invoke)
{
    long long ignored = 0;
    for (int number = 1; number <= LAST_SIGNAL; number++) {
        struct sigaction action;
        if (sigaction(number, NULL, &action) == 0 && action.sa_handler == SIG_IGN)
            ignored |= 1LL << (number - 1);
    }
    if (ignored)
        field_add_number(invoke, "ignored", ignored);
}

static void add_niceness(struct buffer *invoke)
{
    errno = 0;
    int niceness = getpriority(PRIO_PROCESS, 0);
    if (niceness > 0 && errno == 0)
        field_add_number(invoke, "nice", niceness);
}

/* -- descriptors --------------------------------------------------------------------------------------------------- */

/* Return whether this descriptor is one of the two that make names in MAKEFLAGS. */
static bool is_jobserver(long fd)
{
    const char *flags = getenv("MAKEFLAGS");
    const char *found = flags ? strstr(flags, "--jobserver-") : NULL;
    const char *numbers = found ? strchr(found, '=') : NULL;
    if (!numbers)
        return false;
    char *comma;
    long reader = strtol(numbers + 1, &comma, 10);
    return *comma == ',' && (fd == reader || fd == strtol(comma + 1, NULL, 10));
}

/* Return the number at `text` if it is a descriptor that the command inherits, or -1. */
static int inherited_at(const char *text)
{
    while (*text == ' ')
        text++;
    if (!isdigit((unsigned char)*text))
        return -1;
    long fd = strtol(text, NULL, 10);
    if (fd <= STDERR_FILENO || fd > INT_MAX || is_jobserver(fd))
        return -1;
    int flags = fcntl((int)fd, F_GETFD);
    return flags >= 0 && !(flags & FD_CLOEXEC) ? (int)fd : -1;
}

/* Return an inherited descriptor that a word names, or -1: after "<&" or ">&" as in a shell, or
 * after "fd" and another character, as in /dev/fd/7 and --status-fd=7. */
static int named_in(const char *word)
{
    int fd = -1;
    for (const char *at = strchr(word, '&'); at && fd < 0; at = strchr(at + 1, '&'))
        if (at > word && (at[-1] == '<' || at[-1] == '>'))
            fd = inherited_at(at + 1);
    for (const char *at = strstr(word, "fd"); at && fd < 0; at = strstr(at + 2, "fd"))
        if (at[2])
            fd = inherited_at(at + 3);
    return fd;
}

/* Return whether a word ends with "fd", so that the next one may be a number. */
static bool is_option(const char *word)
{
    size_t length = strlen(word);
    return length > 2 && strcmp(word + length - 2, "fd") == 0;
}

static void add_descriptor(struct buffer *invoke, char *const *argv)
{
    int fd = -1;
    for (; *argv && fd < 0; argv++) {
        fd = named_in(*argv);
        if (fd < 0 && is_option(*argv) && argv[1])
            fd = inherited_at(argv[1]);
    }
    if (fd >= 0)
        field_add_number(invoke, "inherited", fd);
}

void inheritance_describe(struct buffer *invoke, const struct command *command)
{
    add_limits(invoke);
    add_niceness(invoke);
    add_ignored(invoke);
    add_descriptor(invoke, command->argv);
}
