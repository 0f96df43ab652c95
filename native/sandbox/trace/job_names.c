/* Read the names that a job gives to the kernel, from its memory, and find out what they name.
 *
 * A relative name begins at the directory of its thread, or at a descriptor. The kernel is asked
 * for both each time. Nothing is remembered, so nothing can be out of date. */
#include "../sandbox.h"

#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <sys/uio.h>

enum { FIRST_READ = 192, PAGE_BYTES = 4096, LINK_NAME_BYTES = 64 };

bool read_memory(pid_t thread, uint64_t address, void *into, size_t length)
{
    struct iovec ours = {into, length}, theirs = {(void *)(uintptr_t)address, length};
    return process_vm_readv(thread, &ours, 1, &theirs, 1, 0) == (ssize_t)length;
}

ssize_t read_name(pid_t thread, uint64_t address, char *into)
{
    size_t have = 0, most = FIRST_READ;
    while (have < PATH_MAX) {
        size_t page = PAGE_BYTES - ((address + have) & (PAGE_BYTES - 1)); /* the next page may not exist */
        size_t wanted = page < most ? page : most;
        if (wanted > PATH_MAX - have)
            wanted = PATH_MAX - have;
        if (!read_memory(thread, address + have, into + have, wanted))
            return -1;
        const char *end = memchr(into + have, '\0', wanted);
        if (end)
            return end - into;
        have += wanted;
        most = PAGE_BYTES;
    }
    errno = ENAMETOOLONG;
    return -1;
}

/* Return whether the text of a link is followed by the kernel's mark of a removed file, and is not
 * the name of a file. */
static bool is_removed(const char *link, char *text, size_t length)
{
    static const char mark[] = " (deleted)";
    struct stat named, meant;
    if (length < sizeof mark || memcmp(text + length - (sizeof mark - 1), mark, sizeof mark - 1) != 0)
        return false;
    text[length] = '\0';
    return stat(link, &meant) != 0 || lstat(text, &named) != 0 || named.st_ino != meant.st_ino ||
           named.st_dev != meant.st_dev;
}

/* Write the path to which a link of /proc leads. Return its length without a slash at its end (0:
 * the root), or -1 if it is no path of the job's root; errno is 0 then, unless the link could not
 * be read. */
static ssize_t follow(const char *link, char *path)
{
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    if (length < 0)
        return -1;
    errno = 0;
    if (length == PATH_MAX - 1 || path[0] != '/' || is_removed(link, path, (size_t)length))
        return -1;
    return length == 1 ? 0 : length;
}

ssize_t path_of_descriptor(pid_t thread, int fd, char *path)
{
    char link[LINK_NAME_BYTES];
    if (fd == AT_FDCWD)
        snprintf(link, sizeof link, "/proc/%d/cwd", thread);
    else
        snprintf(link, sizeof link, "/proc/%d/fd/%d", thread, fd);
    return follow(link, path);
}

/* Append the components of `name` to a path of `length` bytes, and return the new length. A ".."
 * takes a component of that path away, which is no link. Behind a component of `name` it stays,
 * because that may be a link. */
static size_t append(char *path, size_t length, const char *name)
{
    bool is_resolved = true;
    for (size_t part; *name; name += part) {
        part = strcspn(name, "/");
        if (part == 0) {
            part = 1;
        } else if (part == 2 && memcmp(name, "..", 2) == 0 && is_resolved) {
            while (length > 0 && path[--length] != '/')
                ;
        } else if (part != 1 || *name != '.') {
            path[length++] = '/';
            memcpy(path + length, name, part);
            length += part;
            is_resolved = false;
        }
    }
    return length;
}

/* Return the length of the part of `path` that is a link of the kernel to a directory or file of a
 * process, such as /proc/self/cwd or /dev/fd/5, and write the link as we see it. Return 0 for
 * another path. */
static size_t find_link(pid_t thread, const char *path, char link[LINK_NAME_BYTES])
{
    static const char self[] = "/proc/self/", own[] = "/proc/thread-self/", devices[] = "/dev/fd/", proc[] = "/proc/";
    int process = thread, end = 0, fd = -1;
    const char *rest = path;
    if (strncmp(path, devices, sizeof devices - 1) == 0)
        rest += sizeof "/dev/" - 1;
    else if (strncmp(path, self, sizeof self - 1) == 0)
        rest += sizeof self - 1;
    else if (strncmp(path, own, sizeof own - 1) == 0)
        rest += sizeof own - 1;
    else if (strncmp(path, proc, sizeof proc - 1) == 0 && sscanf(path, "/proc/%d/%n", &process, &end) == 1 && end)
        rest += end;
    else
        return 0;
    if (sscanf(rest, "fd/%d%n", &fd, &end) == 1) {
        snprintf(link, LINK_NAME_BYTES, "/proc/%d/fd/%d", process, fd);
    } else {
        end = (int)strcspn(rest, "/");
        bool is_known = (end == 3 && (memcmp(rest, "cwd", 3) == 0 || memcmp(rest, "exe", 3) == 0)) ||
                        (end == 4 && memcmp(rest, "root", 4) == 0);
        if (!is_known)
            return 0;
        snprintf(link, LINK_NAME_BYTES, "/proc/%d/%.*s", process, end, rest);
    }
    return rest[end] == '\0' || rest[end] == '/' ? (size_t)(rest - path) + (size_t)end : 0;
}

ssize_t resolve_name(pid_t thread, int directory, const char *name, char *path, bool is_at_directory)
{
    char link[LINK_NAME_BYTES];
    ssize_t start = 0;
    if ((*name != '/' || is_at_directory) && (start = path_of_descriptor(thread, directory, path)) < 0)
        return -1;
    size_t length = append(path, (size_t)start, name);
    path[length] = '\0';
    size_t known = find_link(thread, path, link);
    if (known > 0) {
        char rest[2 * PATH_MAX];
        memcpy(rest, path + known, length + 1 - known);
        if ((start = follow(link, path)) < 0 || (size_t)start + strlen(rest) >= 2 * PATH_MAX)
            return -1;
        length = append(path, (size_t)start, rest);
    }
    if (length == 0)
        path[length++] = '/';
    return (ssize_t)length;
}
