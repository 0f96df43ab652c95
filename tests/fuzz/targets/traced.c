/* Note the calls of a traced job (native/sandbox/trace) whose memory has any bytes.
 *
 * The input begins with calls: for each a byte with the table and what a look at its process finds,
 * a number of a call in two bytes, and two bytes for each argument. Behind a byte END the memory of
 * the job follows, which lies in the last page before a hole. Symlinks of /proc lead to texts in
 * it. */
#include "../process.h"
#include "../../../native/sandbox/sandbox.h"
#include "../../../native/sandbox/trace/path_set.c"

#include <errno.h>
#include <limits.h>
#include <linux/audit.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>

enum { END = 0xff, ARGUMENTS = 6, CALL_BYTES = 3 + 2 * ARGUMENTS, IS_32 = 1, NO_LINKS = 2, IS_DELETED = 4 };
enum { ADDRESS = 0x8000 /* in an argument: the rest is an offset in the memory */, MOST_CALLS = 64 };
#define HOLE 0x20000000ull /* the memory ends here */

static const char *memory;
static size_t memory_size;
static unsigned look; /* the first byte of a call */
static size_t link_offset;
static bool is_noting; /* otherwise the calls are those of libFuzzer */

ssize_t __real_readlink(const char *link, char *path, size_t size);
int __real_stat(const char *path, struct stat *status);
int __real_lstat(const char *path, struct stat *status);
ssize_t __wrap_process_vm_readv(pid_t pid, const struct iovec *ours, unsigned long our_count,
                                const struct iovec *theirs, unsigned long their_count, unsigned long flags);
ssize_t __wrap_readlink(const char *link, char *path, size_t size);
int __wrap_stat(const char *path, struct stat *status);
int __wrap_lstat(const char *path, struct stat *status);

ssize_t __wrap_process_vm_readv(pid_t pid, const struct iovec *ours, unsigned long our_count,
                                const struct iovec *theirs, unsigned long their_count, unsigned long flags)
{
    (void)pid, (void)our_count, (void)their_count, (void)flags;
    uint64_t address = (uint64_t)(uintptr_t)theirs->iov_base, start = HOLE - memory_size;
    if (address < start || address >= HOLE) {
        errno = look & IS_DELETED ? EPERM : EFAULT;
        return -1;
    }
    size_t most = (size_t)(HOLE - address), count = theirs->iov_len < most ? theirs->iov_len : most;
    memcpy(ours->iov_base, memory + (address - start), count);
    return (ssize_t)count;
}

ssize_t __wrap_readlink(const char *link, char *path, size_t size)
{
    if (!is_noting)
        return __real_readlink(link, path, size);
    if (look & NO_LINKS || link_offset >= memory_size) {
        errno = ENOENT;
        return -1;
    }
    size_t length = strnlen(memory + link_offset, memory_size - link_offset);
    length = length < size ? length : size;
    memcpy(path, memory + link_offset, length);
    return (ssize_t)length;
}

int __wrap_stat(const char *path, struct stat *status)
{
    if (!is_noting)
        return __real_stat(path, status);
    memset(status, 0, sizeof *status);
    expect(strlen(path) < PATH_MAX, "a path ends");
    return 0;
}

int __wrap_lstat(const char *path, struct stat *status)
{
    if (!is_noting)
        return __real_lstat(path, status);
    memset(status, 0, sizeof *status);
    expect(strlen(path) < PATH_MAX, "a path ends");
    status->st_ino = look & IS_DELETED;
    return 0;
}

/* Forget the paths, as the next job does. */
static void forget_paths(void)
{
    set.count = 0;
    set.text_length = 0;
    if (set.slots)
        memset(set.slots, 0, set.slot_count * sizeof *set.slots);
}

/* Check that each path is one from the root, and stands once. */
static void check_paths(void)
{
    for (uint32_t i = 0; i < set.count; i++) {
        const char *path = set.texts + set.entries[i].offset;
        expect(path[0] == '/', "a path begins at the root");
        expect(strlen(path) == set.entries[i].length, "a path has no NUL");
        expect(set.entries[i].length < 2 * PATH_MAX, "a path has an end");
        expect(set.kinds[i].first != 0 && (set.kinds[i].first & ~set.kinds[i].all) == 0, "each use is one of all");
        for (uint32_t j = 0; j < i; j++)
            expect(strcmp(set.texts + set.entries[j].offset, path) != 0, "a path stands once");
    }
}

static uint64_t two_bytes(const uint8_t *bytes)
{
    return bytes[0] | (uint64_t)bytes[1] << 8;
}

static uint64_t argument(const uint8_t *bytes)
{
    uint64_t word = two_bytes(bytes);
    if (word == ADDRESS - 1)
        return (uint64_t)-100; /* AT_FDCWD */
    return word & ADDRESS ? HOLE - memory_size + (word & (ADDRESS - 1)) : word;
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
    size_t calls = 0;
    while (calls < MOST_CALLS && size > (calls + 1) * CALL_BYTES && input[calls * CALL_BYTES] != END)
        calls++;
    size_t used = calls * CALL_BYTES;
    if (size <= used || input[used] != END)
        return 0;
    memory_size = size - used - 1;
    char *copy = guarded_copy(input + used + 1, memory_size);
    memory = copy;
    forget_paths();
    for (size_t i = 0; i < calls; i++) {
        const uint8_t *call = input + i * CALL_BYTES;
        look = call[0];
        link_offset = look >> 3;
        struct seccomp_data made = {.arch = look & IS_32 ? AUDIT_ARCH_I386 : AUDIT_ARCH_X86_64};
        made.nr = (int)two_bytes(call + 1);
        for (int j = 0; j < ARGUMENTS; j++)
            made.args[j] = argument(call + 3 + 2 * j);
        is_noting = true;
        note_call(1, &made);
        is_noting = false;
    }
    check_paths();
    free(copy);
    return 0;
}
