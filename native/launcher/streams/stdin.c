/* Read the launcher's standard input, as the job asks for it.
 *
 * Other processes may share it, so only what the job asks for may be taken. A regular file is read
 * by position, which does not move the shared offset. The offset is set at the end, to the job's
 * last position.
 *
 * The next bytes of a pipe or a stream socket can be shown to the job without taking them (peek).
 * The master says later how many of them the job has taken, and only those are removed here. */
#include "../launcher.h"
#include "../../shared/fields.h"

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>

enum { PIPEFS = 0x50495045 }; /* PIPEFS_MAGIC of linux/magic.h, a header that musl's environment may lack */

/* Return whether the file is /dev/null. */
static bool is_null(const struct stat *st)
{
    return S_ISCHR(st->st_mode) && major(st->st_rdev) == 1 && minor(st->st_rdev) == 3;
}

/* Return whether stdin is an empty unnamed pipe that nobody can write to: make gives such a pipe to
 * all jobs but one. The worker then need not check whether the job reads. */
static bool is_ended_pipe(const struct stat *st)
{
    struct statfs where;
    struct pollfd state = {.fd = STDIN_FILENO, .events = POLLIN};
    return S_ISFIFO(st->st_mode) && fstatfs(STDIN_FILENO, &where) == 0 && where.f_type == PIPEFS &&
           poll(&state, 1, 0) == 1 && state.revents == POLLHUP;
}

/* A file on a tmpfs may have any date; the nearest that a number can say stands for it. */
static long long in_ns(const struct timespec *at)
{
    long long ns;
    if (__builtin_mul_overflow(at->tv_sec, 1000000000LL, &ns) || __builtin_add_overflow(ns, at->tv_nsec, &ns))
        return at->tv_sec < 0 ? LLONG_MIN : LLONG_MAX;
    return ns;
}

/* Add the fields of a file that is read by position, from `offset`. */
static void add_file(struct buffer *invoke, const struct stat *st, off_t offset)
{
    char octal[16];
    snprintf(octal, sizeof octal, "%o", (unsigned)st->st_mode);
    field_add_number(invoke, "stdin_size", st->st_size);
    field_add(invoke, "stdin_mode", octal);
    field_add_number(invoke, "stdin_mtime_ns", in_ns(&st->st_mtim));
    field_add_number(invoke, "stdin_block", st->st_blksize);
    field_add_number(invoke, "stdin_offset", offset);
}

/* A directory counts as a file: it is read by position too, and the error of the read says what is
 * wrong. */
void stdin_describe(struct buffer *invoke)
{
    struct stat st;
    if (fstat(STDIN_FILENO, &st) != 0) {
        field_add(invoke, "stdin", "closed");
        return;
    }
    off_t offset = S_ISREG(st.st_mode) || S_ISDIR(st.st_mode) ? lseek(STDIN_FILENO, 0, SEEK_CUR) : -1;
    if (offset >= 0) {
        field_add(invoke, "stdin", "file");
        add_file(invoke, &st, offset);
    } else {
        field_add(invoke, "stdin", is_null(&st) ? "null" : is_ended_pipe(&st) ? "ended" : "read");
    }
}

/* -- reading ------------------------------------------------------------------------------------------------------- */

enum { CANNOT_PEEK = -2 };

/* Copy up to `size` bytes out of a pipe and leave them in it, by tee(2). Return their number, -1 if
 * there are none now, or CANNOT_PEEK. */
static ssize_t peek_pipe(char *bytes, size_t size)
{
    static int copy[2] = {-1, -1};
    if (copy[0] < 0 && pipe2(copy, O_CLOEXEC) != 0)
        return CANNOT_PEEK;
    ssize_t copied = tee(STDIN_FILENO, copy[1], size, SPLICE_F_NONBLOCK);
    if (copied < 0)
        return errno == EAGAIN || errno == EINTR ? -1 : CANNOT_PEEK;
    ssize_t at = 0;
    while (at < copied) {
        ssize_t n = read(copy[0], bytes + at, (size_t)(copied - at));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return -1;
        at += n;
    }
    return copied;
}

/* Copy up to `size` bytes out of a stream socket and leave them in it. Return CANNOT_PEEK for other
 * sockets: half a datagram cannot be dropped. */
static ssize_t peek_socket(char *bytes, size_t size)
{
    int type;
    socklen_t length = sizeof type;
    if (getsockopt(STDIN_FILENO, SOL_SOCKET, SO_TYPE, &type, &length) != 0 || type != SOCK_STREAM)
        return CANNOT_PEEK;
    return recv(STDIN_FILENO, bytes, size, MSG_PEEK | MSG_DONTWAIT);
}

/* Copy up to `size` bytes and leave them in stdin. Return CANNOT_PEEK if that is impossible. */
static ssize_t peek(char *bytes, size_t size)
{
    struct stat st;
    if (fstat(STDIN_FILENO, &st) != 0)
        return CANNOT_PEEK;
    if (S_ISFIFO(st.st_mode))
        return peek_pipe(bytes, size);
    return S_ISSOCK(st.st_mode) ? peek_socket(bytes, size) : CANNOT_PEEK;
}

ssize_t stdin_read(const struct stdin_wish *wish, char *bytes, bool *is_taken)
{
    *is_taken = false;
    if (wish->offset >= 0)
        return pread(STDIN_FILENO, bytes, wish->size, wish->offset);
    ssize_t n = wish->peek ? peek(bytes, wish->size) : CANNOT_PEEK;
    if (n != CANNOT_PEEK)
        return n;
    n = read(STDIN_FILENO, bytes, wish->size);
    *is_taken = n > 0;
    return n;
}

/* -- leaving ------------------------------------------------------------------------------------------------------- */

/* This never blocks: another process that shares the stream may have taken the same bytes
 * meanwhile. */
bool stdin_drop(unsigned long long size)
{
    static char dropped[4096];
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
    bool any = false;
    while (size > 0 && poll(&input, 1, 0) == 1) {
        ssize_t n = read(STDIN_FILENO, dropped, size < sizeof dropped ? (size_t)size : sizeof dropped);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        any = true;
        size -= (unsigned long long)n;
    }
    return any;
}

void stdin_leave_at(off_t offset)
{
    (void)lseek(STDIN_FILENO, offset, SEEK_SET);
}
