/* Note what one system call says about paths. A path goes to the set; a gap is noted if the trace
 * cannot be complete. */
#include "../sandbox.h"
#include "path_calls.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/openat2.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>

enum { NUMBERS = 512, FILTER_STEPS_MAX = 4096, CLONES_TREE = 1 /* OPEN_TREE_CLONE */, BINDS = 2, CONNECTS = 3 };
enum { LINKAT = 265, NAME_TO_HANDLE_AT = 303 }; /* of x86-64 */

static uint32_t gaps;

uint32_t noted_gaps(void)
{
    return gaps;
}

void note_gap(uint32_t gap)
{
    gaps |= gap;
}

/* Note that something could not be read, unless the process is gone or the address is a bad one:
 * the call then does nothing. */
static void note_unread(void)
{
    if (errno == EPERM || errno == EACCES)
        note_gap(GAP_UNREADABLE);
}

/* Note the path of a descriptor. */
static void note_descriptor(pid_t thread, int fd, uint32_t kinds)
{
    char path[PATH_MAX];
    ssize_t length = path_of_descriptor(thread, fd, path);
    if (length == 0)
        path[length++] = '/';
    if (length < 0)
        note_unread();
    else if (!note_path(path, (size_t)length, kinds))
        note_gap(GAP_PATHS);
}

/* Note the name at an address. `is_at_directory`: an absolute name begins there, too. An empty name
 * stands for the descriptor; its attributes say no more than it did when it was opened. */
static void note_name(pid_t thread, int directory, uint64_t address, uint32_t kinds, bool is_at_directory)
{
    char name[PATH_MAX], path[2 * PATH_MAX];
    if (!address)
        return; /* utimensat(2) and others take a descriptor alone */
    ssize_t length = read_name(thread, address, name);
    if (length < 0) {
        note_unread();
        return;
    }
    if (length == 0) {
        if (directory != AT_FDCWD && !(kinds & STATS))
            note_descriptor(thread, directory, kinds);
        return;
    }
    if (name[length - 1] == '/' || (length > 1 && strcmp(name + length - 2, "/.") == 0))
        kinds |= FOLLOW; /* lstat("link/") follows the link */
    length = resolve_name(thread, directory, name, path, is_at_directory);
    if (length < 0)
        note_unread();
    else if (!note_path(path, (size_t)length, kinds))
        note_gap(GAP_PATHS);
}

/* Return the kinds of open(2) with these flags. A file is opened with O_PATH for its attributes,
 * but a directory for names below it. */
static uint32_t kinds_of_open(uint64_t flags)
{
    uint32_t kinds = flags & O_NOFOLLOW ? NO_FOLLOW : FOLLOW;
    if (flags & O_PATH)
        return kinds | OPENS_PATH | (flags & O_DIRECTORY ? 0 : STATS);
    if ((flags & O_TMPFILE) == O_TMPFILE)
        return kinds | CHECKS;
    if (flags & O_CREAT)
        kinds |= flags & O_EXCL ? EXCLUSIVE : CREATES;
    if (flags & O_TRUNC)
        return kinds | TRUNCATES; /* nothing of the old content is seen */
    switch (flags & O_ACCMODE) {
    case O_RDONLY:
        return kinds | READS;
    case O_WRONLY:
        return kinds | WRITES;
    default:
        return kinds | READS | WRITES;
    }
}

static void note_openat2(pid_t thread, const uint64_t *arguments)
{
    struct open_how how = {0};
    if (!read_memory(thread, arguments[2], &how, sizeof how))
        note_unread();
    else
        note_name(thread, (int)arguments[0], arguments[1], kinds_of_open(how.flags), how.resolve & RESOLVE_IN_ROOT);
}

/* Note the path in the address of a socket. */
static void note_socket(pid_t thread, uint64_t address, uint64_t length, uint32_t kinds)
{
    struct sockaddr_un name = {0};
    if (length <= offsetof(struct sockaddr_un, sun_path) || length > sizeof name)
        return;
    if (!read_memory(thread, address, &name, length))
        note_unread();
    else if (name.sun_family == AF_UNIX && name.sun_path[0])
        note_name(thread, AT_FDCWD, address + offsetof(struct sockaddr_un, sun_path), kinds, false);
}

static void note_socketcall(pid_t thread, const uint64_t *arguments)
{
    uint32_t words[3];
    if (arguments[0] != BINDS && arguments[0] != CONNECTS)
        return;
    if (!read_memory(thread, arguments[1], words, sizeof words))
        note_unread();
    else
        note_socket(thread, words[1], words[2], arguments[0] == BINDS ? MAKES | NO_FOLLOW : CHECKS | FOLLOW);
}

/* Look at a filter of the job's own. If it hands calls to a tracer (proot, strace), that tracer
 * misses those that we have been asked about. A 32-bit program has another structure. */
static void note_filter(pid_t thread, uint64_t address, bool is_32)
{
    static struct sock_filter steps[FILTER_STEPS_MAX];
    uint32_t words[2];
    uint64_t wide[2] = {0};
    bool is_read = is_32 ? read_memory(thread, address, words, sizeof words)
                         : read_memory(thread, address, wide, sizeof wide);
    uint64_t count = is_32 ? words[0] & UINT16_MAX : wide[0] & UINT16_MAX, place = is_32 ? words[1] : wide[1];
    if (!is_read || count > FILTER_STEPS_MAX || !read_memory(thread, place, steps, count * sizeof *steps)) {
        note_unread();
        return;
    }
    for (size_t i = 0; i < count; i++)
        if (steps[i].code == (BPF_RET | BPF_A) ||
            (steps[i].code == (BPF_RET | BPF_K) && (steps[i].k & SECCOMP_RET_ACTION_FULL) == SECCOMP_RET_TRACE))
            note_gap(GAP_FILTER);
}

/* Return the kinds of a call by name. Some calls have a flag that says whether a link at the end is
 * followed. */
static uint32_t kinds_of(const struct path_call *row, const uint64_t *arguments)
{
    uint64_t flags = row->flags == NO_ARGUMENT ? 0 : arguments[row->flags];
    if (row->kinds & (FOLLOW | NO_FOLLOW))
        return row->kinds;
    if (row->numbers[0] == LINKAT || row->numbers[0] == NAME_TO_HANDLE_AT)
        return row->kinds | (flags & AT_SYMLINK_FOLLOW ? FOLLOW : NO_FOLLOW);
    return row->kinds | (flags & AT_SYMLINK_NOFOLLOW ? NO_FOLLOW : FOLLOW);
}

/* Return the row of a call, or NULL. */
static const struct path_call *row_of(bool is_32, int number)
{
    static uint8_t rows[2][NUMBERS]; /* indices + 1 */
    static bool is_made;
    for (size_t i = 0; !is_made && i < PATH_CALL_COUNT; i++)
        for (int table = 0; table < 2; table++)
            if (PATH_CALLS[i].numbers[table] >= 0)
                rows[table][PATH_CALLS[i].numbers[table]] = (uint8_t)(i + 1);
    is_made = true;
    return number < 0 || number >= NUMBERS || !rows[is_32][number] ? NULL : &PATH_CALLS[rows[is_32][number] - 1];
}

/* Return the descriptor in an argument, or AT_FDCWD if the row has none. */
static int directory_in(const uint64_t *arguments, int number)
{
    return number == NO_ARGUMENT ? AT_FDCWD : (int)arguments[number];
}

/* Note what the call of a row says. */
static void note_row(pid_t thread, const struct path_call *row, const uint64_t *arguments, bool is_32)
{
    const int directory = directory_in(arguments, row->dir);
    switch (row->how) {
    case OPENED:
        note_name(thread, directory, arguments[row->path], kinds_of_open(arguments[row->flags]), false);
        break;
    case OPENED_BY_HOW:
        note_openat2(thread, arguments);
        break;
    case OPENS_TREE:
        if (arguments[row->flags] & CLONES_TREE)
            note_gap(GAP_MOUNT);
        note_name(thread, directory, arguments[row->path], kinds_of(row, arguments), false);
        break;
    case NAMED_TWICE:
        note_name(thread, directory, arguments[row->path], kinds_of(row, arguments), false);
        note_name(thread, directory_in(arguments, row->dir2), arguments[row->path2], MAKES | NO_FOLLOW, false);
        break;
    case NAMED:
        note_name(thread, directory, arguments[row->path], kinds_of(row, arguments), false);
        break;
    case BY_DESCRIPTOR:
        note_descriptor(thread, directory, row->kinds);
        break;
    case BY_SOCKET:
        note_socket(thread, arguments[row->path], arguments[row->flags], row->kinds);
        break;
    case BY_SOCKETCALL:
        note_socketcall(thread, arguments);
        break;
    case LEAVES_GAP:
        note_gap(row->kinds);
        break;
    case FILTERS:
    case CONTROLS:
        note_filter(thread, arguments[2], is_32);
        break;
    }
}

void note_call(pid_t thread, const struct seccomp_data *call)
{
    const bool is_32 = call->arch == AUDIT_ARCH_I386;
    const struct path_call *row = row_of(is_32, call->nr);
    if (!row)
        return; /* it is only watched */
    uint64_t arguments[6];
    for (int i = 0; i < 6; i++)
        arguments[i] = is_32 ? (uint32_t)call->args[i] : call->args[i];
    note_row(thread, row, arguments, is_32);
}
