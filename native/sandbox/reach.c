/* A mirror's user must get to termite's own files, but the way to them may be closed to others, as below /root. In the
 * mirror's mount namespace such a directory is covered by an empty one that is open, in which only what was asked for
 * appears, at its own path. Nothing else that the closed directory holds can be seen. */
#include "sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>

/* Covers the first directory on the way to `path` that others may not pass. False: there is none. */
static bool cover_closed(const char *path)
{
    char way[PATH_MAX];
    struct stat st;
    for (const char *end = strchr(path + 1, '/'); end && end - path < PATH_MAX; end = strchr(end + 1, '/')) {
        snprintf(way, sizeof way, "%.*s", (int)(end - path), path);
        if (stat(way, &st) != 0)
            return false; /* what leads on is covered already */
        if (!(st.st_mode & S_IXOTH))
            return mount("tmpfs", way, "tmpfs", MS_NOSUID | MS_NODEV, "mode=755,size=64k") == 0;
    }
    return false;
}

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
