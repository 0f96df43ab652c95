/* Read any mark of a tree (native/launcher/surroundings/mark.c) from any directory.
 *
 * The input is a directory, a NUL and the content of the mark. The first byte says how many
 * directories without a mark come first. A command is refused unless the mark names its
 * directory. */
#include "../process.h"
#include "../../../native/launcher/surroundings/mark.c"

enum { MARK_FD = 99, HEAD = 1 };

static const char *content;
static size_t content_size;
static int unmarked; /* directories that are left without a mark */
static char opened[PATH_MAX + sizeof MARK];

int __real_open(const char *name, int flags, ...);
int __wrap_open(const char *name, int flags, ...);
ssize_t __real_read(int fd, void *bytes, size_t length);
ssize_t __wrap_read(int fd, void *bytes, size_t length);
int __real_close(int fd);
int __wrap_close(int fd);

int __wrap_open(const char *name, int flags, ...)
{
    if (!is_running())
        return __real_open(name, flags, 0600);
    snprintf(opened, sizeof opened, "%s", name);
    errno = ENOENT;
    return unmarked-- > 0 ? -1 : MARK_FD;
}

ssize_t __wrap_read(int fd, void *bytes, size_t length)
{
    if (!is_running())
        return __real_read(fd, bytes, length);
    size_t count = content_size < length ? content_size : length;
    memcpy(bytes, content, count);
    return (ssize_t)count;
}

int __wrap_close(int fd)
{
    return is_running() ? 0 : __real_close(fd);
}

static void check(void *directory)
{
    check_mark(directory);
}

/* Return whether the mark that was opened names the directory in which it is. */
static bool is_right(void)
{
    size_t top = strlen(opened) - strlen(MARK), length = 0;
    while (length < content_size && content[length] && content[length] != '\n')
        length++;
    return length == top && memcmp(opened, content, top) == 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
    if (size < HEAD + 1)
        return 0;
    char *text = guarded_copy(input, size);
    char *separator = memchr(text + HEAD, '\0', size - HEAD);
    if (separator) {
        content = separator + 1;
        content_size = (size_t)(text + size - content);
        unmarked = input[0];
        opened[0] = '\0';
        int code = run_to_end(check, text + HEAD);
        bool is_found = unmarked < 0;
        expect(code == (is_found && !is_right() ? EXIT_MISPLACED : RETURNED), "only a wrong mark refuses a command");
    }
    free(text);
    return 0;
}
