/* Keep jobs away from the file of this program.
 *
 * A job begins as a copy of this process. If the first line of a script names /proc/self/exe, the
 * kernel runs the script with the program of the process that executes it: termite-sandbox. In
 * namespaces of its own a job could then change the mode or attributes of that file, which belongs
 * to the worker's user.
 *
 * Therefore `enter` covers the file with a read-only mount in the mirror's mount namespace. `serve`
 * checks that it runs from such a mount, and otherwise continues from a sealed copy in memory. */
#include "../sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/memfd.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

static const char PROGRAM[] = "/proc/self/exe";
enum { EXECUTABLE = 0x10 }; /* MFD_EXEC of Linux 6.3; older kernels refuse it, and do not need it */

extern char **environ;

void protect_program(void)
{
    const unsigned long inert = MS_RDONLY | MS_NOSUID | MS_NODEV;
    char path[PATH_MAX];
    struct stat named, running;
    ssize_t length = readlink(PROGRAM, path, sizeof path - 1);
    if (length < 0)
        return;
    path[length] = '\0';
    if (stat(path, &named) != 0 || stat(PROGRAM, &running) != 0 || named.st_dev != running.st_dev ||
        named.st_ino != running.st_ino)
        return; /* the file has been replaced since the start */
    if (mount(path, path, NULL, MS_BIND, NULL) == 0)
        (void)mount(NULL, path, NULL, MS_REMOUNT | MS_BIND | inert, NULL);
}

/* Return whether this process runs from a read-only mount. */
static bool is_protected(void)
{
    const unsigned long inert = ST_RDONLY | ST_NOSUID | ST_NODEV;
    struct statvfs st;
    return statvfs(PROGRAM, &st) == 0 && (st.f_flag & inert) == inert;
}

/* Return whether the program is a copy that nobody can write to. */
static bool is_sealed(int program)
{
    int seals = fcntl(program, F_GET_SEALS);
    return seals >= 0 && seals & F_SEAL_WRITE;
}

/* Return a descriptor of an empty file in memory, or -1 with errno. */
static int make_copy(void)
{
    const unsigned usual = MFD_CLOEXEC | MFD_ALLOW_SEALING;
    int copy = memfd_create("termite-sandbox", usual | EXECUTABLE);
    return copy < 0 && errno == EINVAL ? memfd_create("termite-sandbox", usual) : copy;
}

void leave_program(char **argv)
{
    if (is_protected())
        return;
    int program = open(PROGRAM, O_RDONLY | O_CLOEXEC);
    if (program < 0)
        fail_errno("cannot open", PROGRAM);
    if (is_sealed(program)) {
        close(program);
        return;
    }
    int copy = make_copy();
    ssize_t copied = 1;
    while (copy >= 0 && copied > 0)
        copied = sendfile(copy, program, NULL, INT_MAX);
    if (copy < 0 || copied < 0)
        fail_errno("cannot copy", PROGRAM);
    if (fcntl(copy, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL) != 0)
        fail_errno("cannot seal a copy of", PROGRAM);
    fexecve(copy, argv, environ);
    fail_errno("cannot execute a copy of", PROGRAM);
}
