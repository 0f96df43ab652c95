/* Keep the keys of the session that has started the worker away from jobs.
 *
 * A session keyring is inherited by every child, and no namespace hides it. */
#include "../sandbox.h"

#include <errno.h>
#include <linux/keyctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Return whether errno says that there are no keys to leave, or that a container forbids all use of
 * keys. The latter is so if another worker runs in a job. */
static bool has_no_keys(void)
{
    return errno == ENOSYS || errno == EPERM;
}

bool leave_keys(void)
{
    long keyring = syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL);
    return (keyring >= 0 && syscall(SYS_keyctl, KEYCTL_SETPERM, keyring, 0) == 0) || has_no_keys();
}
