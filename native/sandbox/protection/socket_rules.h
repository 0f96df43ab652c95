/* Judge calls that make sockets or set their options, for call_filter.c. */
#ifndef TERMITE_SOCKET_RULES_H
#define TERMITE_SOCKET_RULES_H

#include "filter_steps.h"

#include <linux/net.h>
#include <linux/netlink.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

enum { TYPE_MASK = 0xf }; /* of a type without SOCK_CLOEXEC and SOCK_NONBLOCK */
enum { FIRST_TABLE = 64 /* IPT_SO_SET_REPLACE, IP6T_SO_SET_REPLACE */ };

/* Judge a netlink socket by its protocol; the family is loaded. In network namespaces of its own a
 * job is privileged. By other protocols it would reach firewalls, tunnels and drivers. */
static inline void allow_usual_netlink(struct filter *filter)
{
    size_t is_netlink = skip_unless(filter, BPF_JEQ, AF_NETLINK);
    load_argument(filter, 2, 0);
    allow_if(filter, NETLINK_ROUTE);
    allow_if(filter, NETLINK_SOCK_DIAG);
    allow_if(filter, NETLINK_KOBJECT_UEVENT);
    end_with_error(filter, EPROTONOSUPPORT);
    skip_to_here(filter, is_netlink);
}

/* Judge an internet socket by its type and protocol. For others the kernel would load a module:
 * SCTP, DCCP, MPTCP, L2TP, SMC. Some of them are also what SOCK_SEQPACKET or another type means
 * without a protocol. AF_INET with the obsolete SOCK_PACKET is AF_PACKET. */
static inline void allow_usual_protocols(struct filter *filter)
{
    static const uint32_t usual[] = {IPPROTO_IP,     IPPROTO_TCP,    IPPROTO_UDP, IPPROTO_ICMP,
                                     IPPROTO_ICMPV6, IPPROTO_UDPLITE, IPPROTO_RAW};
    load_argument(filter, 1, 0);
    add(filter, (struct sock_filter)BPF_STMT(BPF_ALU | BPF_AND | BPF_K, TYPE_MASK));
    end_if(filter, BPF_JGE, SOCK_RAW + 1, ESOCKTNOSUPPORT);
    load_argument(filter, 2, 0);
    for (size_t i = 0; i < sizeof usual / sizeof *usual; i++)
        allow_if(filter, usual[i]);
    end_with_error(filter, EPROTONOSUPPORT);
}

/* Allow sockets of the families that builds use. */
static inline void allow_usual_families(struct filter *filter)
{
    load_argument(filter, 0, 0);
    allow_if(filter, AF_UNIX);
    allow_usual_netlink(filter);
    add(filter, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AF_INET, 2, 0));
    size_t is_internet = skip_unless(filter, BPF_JEQ, AF_INET6);
    allow_usual_protocols(filter);
    skip_to_here(filter, is_internet);
}

/* Allow all of socketcall but the making of sockets, and options. */
static inline void allow_other_socketcalls(struct filter *filter, int error)
{
    load_argument(filter, 0, 0);
    end_if(filter, BPF_JEQ, SYS_SOCKET, error);
    end_if(filter, BPF_JEQ, SYS_SOCKETPAIR, error);
    end_if(filter, BPF_JEQ, SYS_SETSOCKOPT, error);
    allow(filter);
}

/* Allow all options of sockets but those by which iptables, arptables, ebtables and ipvsadm change
 * their tables. They are the options of IPv4 from FIRST_TABLE on, and two of IPv6. */
static inline void allow_other_options(struct filter *filter, int error)
{
    load_argument(filter, 1, 0);
    size_t is_version_4 = skip_unless(filter, BPF_JEQ, IPPROTO_IP);
    load_argument(filter, 2, 0);
    end_if(filter, BPF_JGE, FIRST_TABLE, error);
    allow(filter);
    skip_to_here(filter, is_version_4);
    size_t is_version_6 = skip_unless(filter, BPF_JEQ, IPPROTO_IPV6);
    load_argument(filter, 2, 0);
    end_if(filter, BPF_JEQ, FIRST_TABLE, error);
    end_if(filter, BPF_JEQ, FIRST_TABLE + 1, error);
    skip_to_here(filter, is_version_6);
    allow(filter);
}

#endif
