/* Keep each job's sockets without a path ("abstract" ones) apart from those of other processes.
 *
 * All jobs of a lease share a loopback, and with it the names of these sockets. One job could pass
 * a descriptor of its root to another one, which outlives it. With the machine's own network it
 * could reach the worker's desktop. Landlock keeps each job to itself from ABI 6 on (Linux 6.12).
 * On older kernels each job has a network namespace of its own, unless it uses the machine's
 * network.
 *
 * Landlock is asked for nothing else. Signals stop at the pid namespace anyway, and rules for files
 * would forbid a job to mount in namespaces of its own. */
#include "../sandbox.h"

#include <errno.h>
#include <linux/landlock.h>
#include <net/if.h>
#include <sched.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { FIRST_ABI_WITH_SCOPES = 6 };

/* This is as in <linux/landlock.h> since ABI 6; the header of the building machine may be older. */
struct scoped_ruleset {
    uint64_t files, ports, scopes;
};
static const uint64_t ABSTRACT_SOCKETS = 1;

int make_scope(void)
{
    struct scoped_ruleset rules = {.scopes = ABSTRACT_SOCKETS};
    long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
    if (abi < FIRST_ABI_WITH_SCOPES)
        return -1;
    return (int)syscall(SYS_landlock_create_ruleset, &rules, sizeof rules, 0); /* the descriptor is close-on-exec */
}

void enter_scope(int scope)
{
    if (syscall(SYS_landlock_restrict_self, scope, 0) != 0)
        fail_errno("cannot restrict the job's sockets", "");
    close(scope);
}

/* All jobs share this network, unless a rule gives them the machine's. They meet in it as they
 * would in a plain build. A network for each job would cost a third of a sandbox. */
void make_network(void)
{
    if (unshare(CLONE_NEWNET) != 0)
        fail_errno("cannot make a network namespace", "");
    start_loopback();
}

void start_loopback(void)
{
    struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &request) != 0)
        fail_errno("cannot start the loopback interface", "");
    close(fd);
}

int print_scope(void)
{
    static const char landlock[] = "landlock\n", namespaces[] = "namespaces\n";
    bool has_scopes = make_scope() >= 0;
    bool is_said = has_scopes ? write_whole(STDOUT_FILENO, landlock, sizeof landlock - 1)
                              : write_whole(STDOUT_FILENO, namespaces, sizeof namespaces - 1);
    return is_said ? 0 : EXIT_FAILED;
}
