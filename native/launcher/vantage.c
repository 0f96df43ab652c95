/* From where this process sees files, users and the machine, for a master that must see the same ones.
 *
 * A mount belongs to one mount namespace, and no two mounts have one id at one time: so the mount and the inode of "/"
 * tell a chroot and another mount namespace alike, for a third of what /proc/self/ns/mnt would cost. */
#include "launcher.h"
#include "../shared/records.h"

#include <fcntl.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/utsname.h>

/* Of statx(2), as the kernel has it: musl's header does not know the mount's id yet. */
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

static void add_root(struct buffer *invoke)
{
    struct kernel_statx st;
    char text[96] = "";
    if (syscall(SYS_statx, AT_FDCWD, "/", 0, BASIC | MNT_ID, &st) == 0 && st.mask & MNT_ID)
        snprintf(text, sizeof text, "%llu:%u:%u:%llu", (unsigned long long)st.mount_id, st.device_major,
                 st.device_minor, (unsigned long long)st.inode);
    record_add(invoke, "root", text);
}

static void add_users(struct buffer *invoke)
{
    struct stat st;
    char text[96] = "";
    if (stat("/proc/self/ns/user", &st) == 0)
        snprintf(text, sizeof text, "%llu:%u:%u", (unsigned long long)st.st_ino, geteuid(), getegid());
    record_add(invoke, "users", text);
}

static void add_directory(struct buffer *invoke)
{
    struct stat st;
    char text[96] = "";
    if (stat(".", &st) == 0)
        snprintf(text, sizeof text, "%u:%u:%llu", major(st.st_dev), minor(st.st_dev), (unsigned long long)st.st_ino);
    record_add(invoke, "here", text);
}

/* The name belongs to the UTS namespace; linux32 and setarch change the other two. */
static void add_host(struct buffer *invoke)
{
    struct utsname host;
    char text[3 * sizeof host.nodename] = "";
    if (uname(&host) == 0)
        snprintf(text, sizeof text, "%s %s %s", host.nodename, host.release, host.machine);
    record_add(invoke, "host", text);
}

void vantage_describe(struct buffer *invoke)
{
    add_root(invoke);
    add_users(invoke);
    add_directory(invoke);
    add_host(invoke);
}
