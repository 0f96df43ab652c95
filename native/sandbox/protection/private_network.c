/* Give jobs a network that reaches other machines, and nothing that only this machine reaches.
 *
 * The jobs get a network namespace of their own. pasta(1), of the package passt, runs outside of
 * it, and carries what they send through sockets of this machine. pasta would also connect to the
 * machine's own services and to link-local addresses, such as those of cloud metadata. Routing
 * rules in the namespace refuse these, and jobs have no right to change them. They are there before
 * pasta is started. */
#include "../sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fib_rules.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <arpa/inet.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { FIRST = 0, AFTER_FIRST = 1, AFTER_LOCAL = 2 }; /* priorities of rules */
enum { READY_S = 5, READY_PAUSE_NS = 5000000 }; /* pasta needs some 30 ms; the mirror waits for 10 s */

static int pasta_pidfd = -1;

struct rule {
    struct nlmsghdr header;
    struct fib_rule_hdr rule;
    char attributes[64];
};

static void add_attribute(struct rule *rule, unsigned short type, const void *bytes, size_t length)
{
    struct rtattr *attribute = (struct rtattr *)((char *)rule + NLMSG_ALIGN(rule->header.nlmsg_len));
    attribute->rta_type = type;
    attribute->rta_len = (unsigned short)RTA_LENGTH(length);
    memcpy(RTA_DATA(attribute), bytes, length);
    rule->header.nlmsg_len = NLMSG_ALIGN(rule->header.nlmsg_len) + (unsigned)RTA_SPACE(length);
}

/* Return an order to the kernel: `what` is RTM_NEWRULE or RTM_DELRULE. */
static struct rule make_rule(unsigned short what, int family, unsigned char action, uint32_t priority)
{
    struct rule rule = {.header = {.nlmsg_len = NLMSG_LENGTH(sizeof(struct fib_rule_hdr)),
                                   .nlmsg_type = what,
                                   .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE},
                        .rule = {.family = (unsigned char)family, .action = action}};
    add_attribute(&rule, FRA_PRIORITY, &priority, sizeof priority);
    return rule;
}

/* Send the order, and end this process with a report if the kernel refuses it. */
static void apply(int netlink, const struct rule *rule)
{
    struct {
        struct nlmsghdr header;
        struct nlmsgerr error;
    } answer;
    ssize_t length = -1;
    if (send(netlink, rule, rule->header.nlmsg_len, 0) >= 0)
        length = recv(netlink, &answer, sizeof answer, 0);
    if (length >= (ssize_t)sizeof answer && answer.header.nlmsg_type == NLMSG_ERROR) {
        errno = -answer.error.error;
        if (errno == 0)
            return;
    }
    fail_errno("cannot set a rule of the jobs' network", "");
}

/* Refuse what is sent to the first `bits` bits of an address. */
static void prohibit(int netlink, int family, const void *address, unsigned char bits, uint32_t priority)
{
    struct rule rule = make_rule(RTM_NEWRULE, family, FR_ACT_PROHIBIT, priority);
    rule.rule.dst_len = bits;
    add_attribute(&rule, FRA_DST, address, family == AF_INET ? 4 : 16);
    apply(netlink, &rule);
}

static void prohibit_text(int netlink, const char *text, unsigned char bits, uint32_t priority)
{
    unsigned char address[16];
    int family = strchr(text, ':') ? AF_INET6 : AF_INET;
    if (inet_pton(family, text, address) != 1)
        fail("an address cannot be parsed");
    prohibit(netlink, family, address, bits, priority);
}

/* Move the rule for the namespace's own addresses behind another one. */
static void move_local(int netlink, int family)
{
    struct rule local = make_rule(RTM_NEWRULE, family, FR_ACT_TO_TBL, AFTER_FIRST);
    local.rule.table = RT_TABLE_LOCAL;
    apply(netlink, &local);
    struct rule old = make_rule(RTM_DELRULE, family, FR_ACT_TO_TBL, FIRST);
    old.rule.table = RT_TABLE_LOCAL;
    apply(netlink, &old);
}

static bool has_ipv6(void)
{
    return access("/proc/self/net/if_inet6", F_OK) == 0;
}

/* Refuse a local route of the machine. */
static void prohibit_route(const struct local_route *route)
{
    int netlink = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    if (netlink < 0)
        fail_errno("cannot make a netlink socket", "");
    prohibit(netlink, route->family, route->address, route->bits, AFTER_LOCAL);
    close(netlink);
}

void refuse_new_addresses(void)
{
    if (pasta_pidfd >= 0)
        take_new_local_routes(has_ipv6(), prohibit_route);
}

/* Refuse link-local addresses and groups of the local link. The namespace's own addresses stay
 * reachable, which pasta makes equal to one of the machine's. */
static void prohibit_near(bool is_ipv6_there)
{
    static const struct {
        const char *address;
        unsigned char bits;
        uint32_t priority;
    } near[] = {{"224.0.0.0", 4, FIRST},          {"ff00::", 8, FIRST},
                {"169.254.0.0", 16, AFTER_LOCAL}, {"255.255.255.255", 32, AFTER_LOCAL},
                {"0.0.0.0", 8, AFTER_LOCAL},      {"fe80::", 10, AFTER_LOCAL},
                {"fd00:ec2::254", 128, AFTER_LOCAL}}; /* the last one: cloud metadata */
    int netlink = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    if (netlink < 0)
        fail_errno("cannot make a netlink socket", "");
    move_local(netlink, AF_INET);
    if (is_ipv6_there)
        move_local(netlink, AF_INET6);
    for (size_t i = 0; i < sizeof near / sizeof *near; i++)
        if (is_ipv6_there || !strchr(near[i].address, ':'))
            prohibit_text(netlink, near[i].address, near[i].bits, near[i].priority);
    close(netlink);
}

/* Become pasta as soon as a byte comes from `start`, in the machine's network. `place` is a file at
 * which the namespace of the jobs is mounted by then. */
static _Noreturn void become_pasta(const char *pasta, char *place, int start)
{
    char byte, *nothing[] = {NULL};
    char *argv[] = {"pasta", "--foreground", "--quiet", "--netns-only", "--config-net", "--no-map-gw", "--no-ra",
                    "--ns-ifname", "termite0", "-t", "none", "-u", "none", "-T", "none", "-U", "none",
                    "--netns", place, NULL};
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    signal(SIGCHLD, SIG_DFL);
    if (read(start, &byte, 1) == 1) /* otherwise `serve` has ended */
        execve(pasta, argv, nothing);
    _exit(EXIT_FAILED);
}

/* Return whether the current network namespace has a default route. */
static bool has_route(void)
{
    char line[512];
    bool found = false;
    FILE *routes = fopen("/proc/self/net/route", "re");
    while (routes && !found && fgets(line, sizeof line, routes))
        found = strncmp(line, "termite0\t00000000\t", 18) == 0;
    if (routes)
        fclose(routes);
    routes = fopen("/proc/self/net/ipv6_route", "re");
    while (routes && !found && fgets(line, sizeof line, routes))
        found = strncmp(line, "00000000000000000000000000000000 00 ", 36) == 0 && strstr(line, " termite0");
    if (routes)
        fclose(routes);
    return found;
}

bool is_network_alive(void)
{
    struct pollfd end = {.fd = pasta_pidfd, .events = POLLIN};
    return pasta_pidfd < 0 || poll(&end, 1, 0) == 0;
}

void make_private_network(const char *pasta, const char *scratch)
{
    char place[PATH_MAX];
    int start[2];
    if (snprintf(place, sizeof place, "%s/parts/network", scratch) >= PATH_MAX)
        fail("the scratch directory's path is too long");
    int file = open(place, O_CREAT | O_RDONLY | O_CLOEXEC, 0600);
    if (file < 0 || pipe2(start, O_CLOEXEC) != 0)
        fail_errno("cannot prepare a network", "");
    close(file);
    open_local_routes();
    pid_t pid = fork();
    if (pid == 0) {
        close(start[1]);
        become_pasta(pasta, place, start[0]);
    }
    pasta_pidfd = pid < 0 ? -1 : (int)syscall(SYS_pidfd_open, pid, 0);
    if (pasta_pidfd < 0 || unshare(CLONE_NEWNET) != 0)
        fail_errno("cannot make a network namespace", "");
    start_loopback();
    prohibit_near(has_ipv6());
    refuse_new_addresses();
    if (mount("/proc/self/ns/net", place, NULL, MS_BIND, NULL) != 0)
        fail_errno("cannot keep", "a network namespace");
    if (write(start[1], "", 1) != 1)
        fail_errno("cannot start", pasta);
    close(start[0]);
    close(start[1]);
    struct timespec now, began;
    clock_gettime(CLOCK_MONOTONIC, &began);
    while (!has_route()) {
        clock_gettime(CLOCK_MONOTONIC, &now); /* a pause is longer on a busy machine */
        if (now.tv_sec - began.tv_sec > READY_S || !is_network_alive())
            fail("pasta(1) gives the jobs no network: see the worker's log");
        nanosleep(&(struct timespec){.tv_nsec = READY_PAUSE_NS}, NULL);
    }
}
