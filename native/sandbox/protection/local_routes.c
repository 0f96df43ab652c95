/* Read the addresses that the kernel of this machine takes for its own, from its local routes.
 *
 * They are more than those of its interfaces: `ip route add local 10.5.0.0/16 dev lo` makes
 * a whole network the machine's own, as some load balancers do. Other tables are not read, to which
 * rules of the machine may lead. */
#include "../sandbox.h"

#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ANSWER_BYTES = 32768 /* of one message; the kernel fills at most so many */, ROUTES_MOST = 65536 };

static struct local_route *known;
static size_t known_count, next_known;
static int machine = -1; /* a socket that stays in the network of the machine */

void open_local_routes(void)
{
    int on = 1;
    machine = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    if (machine < 0)
        fail_errno("cannot make a netlink socket", "");
    /* The kernel then sends the table that is asked for only. Before Linux 4.20 it sends all. */
    setsockopt(machine, SOL_NETLINK, NETLINK_GET_STRICT_CHK, &on, sizeof on);
}

/* Return whether a route is known. The kernel sends them in one order, so the search begins behind
 * the one that was found last. */
static bool is_known(const struct local_route *route)
{
    for (size_t i = 0; i < known_count; i++) {
        size_t at = (next_known + i) % known_count;
        if (memcmp(&known[at], route, sizeof *route) == 0) {
            next_known = at + 1;
            return true;
        }
    }
    return false;
}

static void remember(const struct local_route *route)
{
    struct local_route *more = NULL;
    if (known_count < ROUTES_MOST)
        more = realloc(known, (known_count + 1) * sizeof *known);
    if (!more)
        fail("the machine has too many local routes for a private network");
    known = more;
    known[known_count++] = *route;
}

/* Call `take` for a route if it is a local one, and new. */
static void look_at(const struct nlmsghdr *header, void (*take)(const struct local_route *route))
{
    const struct rtmsg *message = NLMSG_DATA(header);
    int length = (int)RTM_PAYLOAD(header);
    uint32_t table = message->rtm_table;
    struct local_route route = {.family = message->rtm_family, .bits = message->rtm_dst_len};
    if (header->nlmsg_type != RTM_NEWROUTE || length < 0 || (route.family != AF_INET && route.family != AF_INET6))
        return;
    size_t size = route.family == AF_INET ? 4 : 16;
    for (const struct rtattr *one = RTM_RTA(message); RTA_OK(one, length); one = RTA_NEXT(one, length)) {
        if (one->rta_type == RTA_DST && RTA_PAYLOAD(one) == size)
            memcpy(route.address, RTA_DATA(one), size);
        else if (one->rta_type == RTA_TABLE && RTA_PAYLOAD(one) == sizeof table)
            memcpy(&table, RTA_DATA(one), sizeof table);
    }
    if (table != RT_TABLE_LOCAL || message->rtm_type == RTN_MULTICAST || is_known(&route))
        return;
    remember(&route);
    take(&route);
}

static void read_routes(int family, void (*take)(const struct local_route *route))
{
    _Alignas(struct nlmsghdr) char answer[ANSWER_BYTES];
    struct {
        struct nlmsghdr header;
        struct rtmsg message;
    } order = {.header = {.nlmsg_len = sizeof order, .nlmsg_type = RTM_GETROUTE,
                          .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP},
               .message = {.rtm_family = (unsigned char)family, .rtm_table = RT_TABLE_LOCAL}};
    if (send(machine, &order, sizeof order, 0) < 0)
        fail_errno("cannot ask for the machine's local routes", "");
    next_known = 0;
    for (;;) {
        ssize_t received = recv(machine, answer, sizeof answer, 0);
        if (received <= 0)
            fail_errno("cannot read the machine's local routes", "");
        int length = (int)received;
        for (const struct nlmsghdr *one = (const void *)answer; NLMSG_OK(one, length); one = NLMSG_NEXT(one, length)) {
            if (one->nlmsg_type == NLMSG_DONE || one->nlmsg_type == NLMSG_ERROR)
                return; /* an error: the kernel has no such family, or no such table */
            look_at(one, take);
        }
    }
}

void take_new_local_routes(bool has_ipv6, void (*take)(const struct local_route *route))
{
    read_routes(AF_INET, take);
    if (has_ipv6)
        read_routes(AF_INET6, take);
}
