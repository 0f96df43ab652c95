/* Split any bytes into the names to remove (native/sandbox/remove.c), however they are cut.
 *
 * No call of this target changes a file: each name is reported as absent. The first byte of the
 * input says how many bytes come at once. */
#include "../process.h"
#include "../../../native/sandbox/remove.c"

static const uint8_t *names_left;
static size_t size_left, piece;
static struct buffer asked; /* the names that were opened, in order, with a NUL after each */

ssize_t __real_read(int fd, void *bytes, size_t length);
ssize_t __wrap_read(int fd, void *bytes, size_t length);
int __real_open(const char *name, int flags, ...);
int __wrap_open(const char *name, int flags, ...);
int __real_unlink(const char *name);
int __wrap_unlink(const char *name);
int __real_chdir(const char *name);
int __wrap_chdir(const char *name);

ssize_t __wrap_read(int fd, void *bytes, size_t length)
{
    if (!is_running())
        return __real_read(fd, bytes, length);
    size_t count = size_left < piece ? size_left : piece;
    count = count < length ? count : length;
    memcpy(bytes, names_left, count);
    names_left += count;
    size_left -= count;
    return (ssize_t)count;
}

int __wrap_open(const char *name, int flags, ...)
{
    if (!is_running())
        return __real_open(name, flags, 0600);
    buffer_add(&asked, name, strlen(name) + 1);
    errno = ENOENT;
    return -1;
}

int __wrap_unlink(const char *name)
{
    expect(!is_running(), "an absent name is not unlinked");
    return __real_unlink(name);
}

int __wrap_chdir(const char *name)
{
    return is_running() ? 0 : __real_chdir(name);
}

static void remove_names(void *code)
{
    asked = waiting = (struct buffer){0};
    *(int *)code = remove_listed("/nowhere");
}

/* Return the number of whole names in the input. */
static size_t count_names(const uint8_t *bytes, size_t size)
{
    size_t count = 0;
    for (size_t i = 0; i < size; i++)
        count += bytes[i] == '\0';
    return count;
}

/* Check that as many names were opened as have come, and as many bytes. Those that come at once are
 * opened in another order. */
static void check_names(const uint8_t *bytes, size_t size)
{
    const uint8_t *end = size > 0 ? memrchr(bytes, '\0', size) : NULL;
    size_t whole = end ? (size_t)(end - bytes) + 1 : 0;
    expect(asked.length == whole, "the names are as long as they came");
    expect(count_names((const uint8_t *)asked.bytes, asked.length) == count_names(bytes, size), "each name is taken");
}

static void remove_and_check(void *input)
{
    int code = -1;
    const uint8_t *bytes = names_left;
    size_t size = size_left;
    remove_names(&code);
    expect(code == 0, "names are removed without an error");
    check_names(bytes, size);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
    if (size < 1)
        return 0;
    piece = (size_t)input[0] + 1;
    names_left = input + 1;
    size_left = size - 1;
    run_to_end(remove_and_check, NULL);
    return 0;
}
