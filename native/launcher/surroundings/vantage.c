/* Describe from where this process sees files, users and the machine. The master compares this with
 * its own view.
 *
 * A mount belongs to one mount namespace, and no two mounts have the same id at the same time. The
 * mount and the inode of "/" therefore reveal a chroot and another mount namespace alike. Reading
 * them costs a third of what /proc/self/ns/mnt would cost. */
#include "../launcher.h"
#include "../../shared/fields.h"

#include <fcntl.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/utsname.h>

/* These are statx(2)'s, as the kernel defines them: musl's header does not have the mount's id
 * yet. */
enum { MNT_ID = 0x1000, BASIC = 0x7ff };

struct kernel_statx {
    uint32_t mask, rest_1[7];
    uint64_t inode, rest_2[12];
    uint32_t device_major, device_minor;
    uint64_t mount_id, rest_3[13];
};
_Static_assert(offsetof(struct kernel_statx, inode) == 32, "as in linux/stat.h");
_Static_assert(offsetof(struct kernel_statx, mount_id) == 144, "as in linux/stat.h");
_Static_assert(sizeof(struct kernel_statx) == 256, "as in linux/stat.h");

/* Add the mount, device and inode of "/". */
static void add_root(struct buffer *invoke)
{
    struct kernel_statx st;
    char text[96] = "";
    if (syscall(SYS_statx, AT_FDCWD, "/", 0, BASIC | MNT_ID, &st) == 0 && st.mask & MNT_ID)
        snprintf(text, sizeof text, "%llu:%u:%u:%llu", (unsigned long long)st.mount_id, st.device_major,
                 st.device_minor, (unsigned long long)st.inode);
    field_add(invoke, "root", text);
}

/* Add the inode of the user namespace and the effective ids. */
static void add_users(struct buffer *invoke)
{
    struct stat st;
    char text[96] = "";
    if (stat("/proc/self/ns/user", &st) == 0)
        snprintf(text, sizeof text, "%llu:%u:%u", (unsigned long long)st.st_ino, geteuid(), getegid());
    field_add(invoke, "users", text);
}

/* Add the device and inode of the working directory. */
static void add_directory(struct buffer *invoke)
{
    struct stat st;
    char text[96] = "";
    if (stat(".", &st) == 0)
        snprintf(text, sizeof text, "%u:%u:%llu", major(st.st_dev), minor(st.st_dev), (unsigned long long)st.st_ino);
    field_add(invoke, "here", text);
}

/* Add the host name, which belongs to the UTS namespace, and the release and machine, which linux32
 * and setarch change. */
static void add_host(struct buffer *invoke)
{
    struct utsname host;
    char text[3 * sizeof host.nodename] = "";
    if (uname(&host) == 0)
        snprintf(text, sizeof text, "%s %s %s", host.nodename, host.release, host.machine);
    field_add(invoke, "host", text);
}

void vantage_describe(struct buffer *invoke)
{
    add_root(invoke);
    add_users(invoke);
    add_directory(invoke);
    add_host(invoke);
}
