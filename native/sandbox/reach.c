/* Make termite's own files reachable for a mirror's user, even below a directory that is closed to
 * others, such as /root.
 *
 * In the mirror's mount namespace the closed directory is covered by an empty one. Only the
 * requested directories appear in it, at their own paths, so nothing else of the closed directory
 * can be seen. */
#include "sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>

/* Cover the first parent directory of `path` that others may not enter. Return false if there is
 * none. */
static bool cover_closed(const char *path)
{
    char way[PATH_MAX];
    struct stat st;
    for (const char *end = strchr(path + 1, '/'); end && end - path < PATH_MAX; end = strchr(end + 1, '/')) {
        snprintf(way, sizeof way, "%.*s", (int)(end - path), path);
        if (stat(way, &st) != 0)
            return false; /* its parent has been covered already */
        if (!(st.st_mode & S_IXOTH))
            return mount("tmpfs", way, "tmpfs", MS_NOSUID | MS_NODEV, "mode=755,size=64k") == 0;
    }
    return false;
}

/* Make `path` and its parent directories, as far as they are missing. */
static void make_way(const char *path)
{
    char way[PATH_MAX];
    for (const char *end = strchr(path + 1, '/'); end && end - path < PATH_MAX; end = strchr(end + 1, '/')) {
        snprintf(way, sizeof way, "%.*s", (int)(end - path), path);
        (void)mkdir(way, 0755);
    }
    (void)mkdir(path, 0755);
}

const char *reach(char *const *paths, size_t count)
{
    int kept[REACH_MAX];
    bool covered = false;
    for (size_t i = 0; i < count; i++)
        kept[i] = open(paths[i], O_PATH | O_DIRECTORY | O_CLOEXEC);
    for (size_t i = 0; i < count; i++)
        covered |= kept[i] >= 0 && cover_closed(paths[i]);
    for (size_t i = 0; covered && i < count; i++) {
        char source[64];
        snprintf(source, sizeof source, "/proc/self/fd/%d", kept[i]);
        if (kept[i] < 0)
            continue;
        make_way(paths[i]);
        if (mount(source, paths[i], NULL, MS_BIND | MS_REC, NULL) != 0)
            return paths[i];
    }
    return NULL;
}
