/* Describe the launcher's stdout and stderr, write to them, and remember what was written. */
#include "../launcher.h"
#include "../../shared/fields.h"

#include <poll.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

bool is_one_file(int one, int other)
{
    struct stat a, b;
    return fstat(one, &a) == 0 && fstat(other, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

/* Return whether the build tool has opened this file for the command: the tool's own descriptor of
 * the same number is another file. */
static bool is_of_the_tool(int fd, const struct stat *st)
{
    char name[48];
    struct stat its;
    snprintf(name, sizeof name, "/proc/%d/fd/%d", (int)getppid(), fd);
    return stat(name, &its) == 0 && (its.st_dev != st->st_dev || its.st_ino != st->st_ino);
}

/* Return the word for the kind of file that `fd` is; docs/develop/protocol.md lists them. */
static const char *kind_of(int fd, bool is_collected)
{
    struct stat st;
    if (isatty(fd))
        return "tty";
    if (fstat(fd, &st) != 0)
        return "other";
    if (S_ISREG(st.st_mode))
        return "file";
    if (S_ISCHR(st.st_mode) && major(st.st_rdev) == 1 && minor(st.st_rdev) == 3)
        return "null";
    return is_collected && S_ISFIFO(st.st_mode) && is_of_the_tool(fd, &st) ? "collected" : "other";
}

void output_describe(struct buffer *invoke, const struct command *command)
{
    static const char *const collectors[] = {"ninja", "ninja-build", "samu"};
    bool is_collected = false;
    for (size_t i = 0; i < sizeof collectors / sizeof *collectors; i++)
        is_collected = is_collected || strcmp(command->tool, collectors[i]) == 0;
    const char *out = kind_of(STDOUT_FILENO, is_collected), *err = kind_of(STDERR_FILENO, is_collected);
    bool is_merged = is_one_file(STDOUT_FILENO, STDERR_FILENO);
    bool out_is_terminal = strcmp(out, "tty") == 0, err_is_terminal = strcmp(err, "tty") == 0;
    if (out_is_terminal && err_is_terminal)
        is_merged = is_merged || is_one_terminal(STDOUT_FILENO, STDERR_FILENO);
    if (out_is_terminal || err_is_terminal)
        note_terminal(out_is_terminal ? STDOUT_FILENO : STDERR_FILENO);
    field_add(invoke, "merge", is_merged ? "1" : "0");
    field_add(invoke, "in", isatty(STDIN_FILENO) ? "tty" : "other");
    field_add(invoke, "out", out);
    field_add(invoke, "err", err);
    terminal_describe(invoke);
}

bool output_write(int fd, const char *bytes, size_t length)
{
    while (length > 0) {
        ssize_t n = write(fd, bytes, length);
        if (n >= 0) {
            bytes += n;
            length -= (size_t)n;
        } else if (errno == EAGAIN) {
            poll(&(struct pollfd){.fd = fd, .events = POLLOUT}, 1, -1);
        } else if (errno != EINTR) {
            return false;
        }
    }
    return true;
}

/* The hash is FNV-1a with 64 bits. Each step can be reversed, so two texts that differ in one place
 * never have the same hash. */
void shown_add(struct shown *shown, const char *bytes, size_t length)
{
    uint64_t hash = shown->length > 0 ? shown->hash : UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < length; i++)
        hash = (hash ^ (unsigned char)bytes[i]) * UINT64_C(0x100000001b3);
    shown->hash = hash;
    shown->length += length;
}
