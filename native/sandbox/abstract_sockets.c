/* Which processes a job can reach by a socket without a path (an "abstract" one).
 *
 * All jobs of a lease share a loopback, and with it the names of these sockets: one job could pass
 * a descriptor of its root to another one, which outlives it; with the machine's own network it
 * could talk to the worker's desktop. Landlock keeps each job to itself from ABI 6 on (Linux 6.12).
 * On older kernels each job has a network namespace of its own, but for those that have the
 * machine's. Landlock is asked for nothing else: signals stop at the pid namespace, and rules for
 * files would forbid a job to mount in namespaces of its own. */
#include "sandbox.h"

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

/* As <linux/landlock.h> has it since ABI 6; that of the machine that builds this may be older. */
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
    return (int)syscall(SYS_landlock_create_ruleset, &rules, sizeof rules, 0); /* close-on-exec */
}

void enter_scope(int scope)
{
    if (syscall(SYS_landlock_restrict_self, scope, 0) != 0)
        fail_errno("cannot restrict the job's sockets", "");
    close(scope);
}

/* One network for all jobs but those that a rule gives the machine's: a loopback interface, and
 * nothing else. They meet there as they would at home; one for each cost a third of a sandbox. */
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
