"""The filter of system calls, run for every number of every architecture that it knows."""

import errno
import socket
import subprocess
from pathlib import Path

import pytest

from tests.hostile.filters import Step, Verdict, judge, numbers_in, read_filters

NATIVE = Path(__file__).parents[2] / "native"
X86_64, I386, AARCH64, ARM, RISCV64 = 0xC000003E, 0x40000003, 0xC00000B7, 0x40000028, 0xC00000F3
X32_BIT = 0x40000000
X86_HEADERS = Path("/usr/include/x86_64-linux-gnu/asm")
GENERIC_HEADER = Path("/usr/include/asm-generic/unistd.h")

DENIED = {
    "socket": errno.EAFNOSUPPORT,
    "socketpair": errno.EAFNOSUPPORT,
    "keyctl": errno.ENOSYS,
    **dict.fromkeys(("add_key", "request_key", "userfaultfd"), errno.ENOSYS),
    **dict.fromkeys(("io_uring_setup", "io_uring_enter", "io_uring_register"), errno.ENOSYS),
    **dict.fromkeys(("bpf", "perf_event_open", "fanotify_init", "open_by_handle_at", "syslog"), errno.EPERM),
    **dict.fromkeys(("kexec_load", "kexec_file_load"), errno.EPERM),
    **dict.fromkeys(("init_module", "finit_module", "delete_module"), errno.EPERM),
}
# From the kernel's arch/arm/tools/syscall.tbl: the headers of this machine do not have them.
ARM_NUMBERS = {
    "ioctl": 54,
    "setsockopt": 294,
    "socket": 281,
    "socketpair": 288,
    "add_key": 309,
    "request_key": 310,
    "keyctl": 311,
    "userfaultfd": 388,
    "io_uring_setup": 425,
    "io_uring_enter": 426,
    "io_uring_register": 427,
    "bpf": 386,
    "perf_event_open": 364,
    "fanotify_init": 367,
    "open_by_handle_at": 371,
    "syslog": 103,
    "kexec_load": 347,
    "kexec_file_load": 401,
    "init_module": 128,
    "finit_module": 379,
    "delete_module": 129,
}
# Watched calls: the places of the ids among the arguments, first users, then groups.
OWN_UID, OWN_GID, NOBODY = 1000, 100, 65534
OWNERS = {"chown": (1, 2), "lchown": (1, 2), "fchown": (1, 2), "fchownat": (2, 3)}
USERS = {"setuid": (0,), "setreuid": (0, 1), "setresuid": (0, 1, 2)}
GROUPS = {"setgid": (0,), "setregid": (0, 1), "setresgid": (0, 1, 2)}
ATTRIBUTES = ("setxattr", "lsetxattr", "fsetxattr")
ARM_WATCHED = {
    "chown": 182,
    "lchown": 16,
    "fchown": 95,
    "fchownat": 325,
    "chown32": 212,
    "lchown32": 198,
    "fchown32": 207,
    "setuid": 23,
    "setreuid": 70,
    "setresuid": 164,
    "setuid32": 213,
    "setreuid32": 203,
    "setresuid32": 208,
    "setgid": 46,
    "setregid": 71,
    "setresgid": 170,
    "setgid32": 214,
    "setregid32": 204,
    "setresgid32": 210,
    "setgroups": 81,
    "setgroups32": 206,
    "setxattr": 226,
    "lsetxattr": 227,
    "fsetxattr": 228,
    "seccomp": 383,
}
SOCKETCALL = {"socketcall": errno.ENOSYS}
USUAL = (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK)


@pytest.fixture(scope="module")
def filters(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Step]]:
    program = tmp_path_factory.mktemp("filters") / "dump"
    source = Path(__file__).parent / "dump_filters.c"
    include = [f"-I{NATIVE / room}" for room in ("sandbox", "sandbox/protection", "shared")]
    subprocess.run(["gcc", "-Wall", "-Werror", "-D_GNU_SOURCE", *include, source, "-o", program], check=True)

    def dump(uid: int, gid: int) -> list[list[Step]]:
        return read_filters(subprocess.run([program, str(uid), str(gid)], capture_output=True, check=True).stdout)

    names = ("x86", "x86 watched", "x86 unheard", "arm", "arm watched", "arm unheard")
    ordinary = dict(zip(names, dump(OWN_UID, OWN_GID), strict=True))
    return ordinary | {f"{name} root": steps for name, steps in zip(names, dump(0, 0), strict=True)}


def header(path: Path) -> dict[str, int]:
    if not path.exists():
        pytest.skip(f"this machine has no {path}")
    return numbers_in(path)


def numbers_of(arch: int) -> dict[str, int]:
    if arch == ARM:
        return ARM_NUMBERS
    if arch == AARCH64:
        return header(GENERIC_HEADER)
    return header(X86_HEADERS / ("unistd_64.h" if arch == X86_64 else "unistd_32.h"))


ARCHES = [
    pytest.param("x86", X86_64, id="x86-64"),
    pytest.param("x86", I386, id="i386"),
    pytest.param("arm", AARCH64, id="aarch64"),
    pytest.param("arm", ARM, id="arm"),
]


@pytest.mark.parametrize(("machine", "arch"), ARCHES)
def test_these_calls_are_denied_and_no_others(filters: dict[str, list[Step]], machine: str, arch: int) -> None:
    numbers = numbers_of(arch)
    expected = DENIED | (SOCKETCALL if arch == I386 else {})
    denied = {number: judge(filters[machine], arch, number, (1, 99)).error for number in range(1024)}
    allowed_with_these_arguments = {numbers[name] for name in ("socket", "socketpair")}
    assert {number: error for number, error in denied.items() if error} == {
        numbers[name]: error
        for name, error in expected.items()
        if name in numbers and numbers[name] not in allowed_with_these_arguments
    }


@pytest.mark.parametrize(("machine", "arch"), ARCHES)
def test_the_answer_to_every_other_call_is_known_beforehand(
    filters: dict[str, list[Step]], machine: str, arch: int
) -> None:
    """The kernel does not run the filter for calls that are judged by their number alone."""
    numbers = numbers_of(arch)
    judged = {number for number in range(1024) if judge(filters[machine], arch, number).reads_arguments}
    by_arguments = ("socket", "socketpair", "setsockopt", "ioctl", *(SOCKETCALL if arch == I386 else ()))
    assert judged == {numbers[name] for name in by_arguments}


@pytest.mark.parametrize(("machine", "arch"), ARCHES)
@pytest.mark.parametrize("name", ["socket", "socketpair"])
def test_sockets_of_the_usual_families_are_allowed_alone(
    filters: dict[str, list[Step]], machine: str, arch: int, name: str
) -> None:
    number = numbers_of(arch)[name]
    for kind in range(16):
        for flags in (0, socket.SOCK_CLOEXEC, socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC):
            allowed = {
                family
                for family in (*range(64), 0xFFFFFFFF)
                if not judge(filters[machine], arch, number, (family, kind | flags)).error
            }
            assert allowed == {*USUAL} - ({socket.AF_INET, socket.AF_INET6} if kind > socket.SOCK_RAW else set())


@pytest.mark.parametrize(("machine", "arch"), ARCHES)
@pytest.mark.parametrize("name", ["socket", "socketpair"])
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_internet_sockets_of_the_usual_protocols_are_allowed_alone(
    filters: dict[str, list[Step]], machine: str, arch: int, name: str, family: int
) -> None:
    number = numbers_of(arch)[name]
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, socket.SOCK_RAW):
        answers = {
            protocol: judge(filters[machine], arch, number, (family, kind, protocol)).error
            for protocol in (*range(300), 0xFFFFFFFF)
        }
        # IP, ICMP, TCP, UDP, ICMP of IPv6, UDP-Lite, and RAW.
        assert {protocol for protocol, error in answers.items() if not error} == {0, 1, 6, 17, 58, 136, 255}
        assert set(answers.values()) == {0, errno.EPROTONOSUPPORT}
    errors = {kind: judge(filters[machine], arch, number, (family, kind)).error for kind in range(16)}
    assert {kind for kind, error in errors.items() if error} == {*range(4, 16)}, "DCCP, SEQPACKET, PACKET"
    assert set(errors.values()) == {0, errno.ESOCKTNOSUPPORT}


@pytest.mark.parametrize(("machine", "arch"), ARCHES)
@pytest.mark.parametrize("name", ["socket", "socketpair"])
def test_netlink_sockets_of_the_usual_protocols_are_allowed_alone(
    filters: dict[str, list[Step]], machine: str, arch: int, name: str
) -> None:
    number = numbers_of(arch)[name]
    answers = {
        protocol: judge(filters[machine], arch, number, (socket.AF_NETLINK, 3, protocol)).error
        for protocol in (*range(64), 0xFFFFFFFF)
    }
    assert {protocol for protocol, error in answers.items() if not error} == {0, 4, 15}
    assert set(answers.values()) == {0, errno.EPROTONOSUPPORT}


def test_the_kernel_takes_the_lower_half_of_a_family_and_so_does_the_filter(filters: dict[str, list[Step]]) -> None:
    number = numbers_of(X86_64)["socket"]
    assert judge(filters["x86"], X86_64, number, (0xFFFFFFFF_00000001, 1)).error == 0
    assert judge(filters["x86"], X86_64, number, (0x00000001_00000028, 1)).error == errno.EAFNOSUPPORT


def test_i386_makes_no_sockets_where_their_family_cannot_be_seen(filters: dict[str, list[Step]]) -> None:
    number = numbers_of(I386)["socketcall"]
    denied = {call for call in range(32) if judge(filters["x86"], I386, number, (call,)).error == errno.ENOSYS}
    assert denied == {1, 8, 14}, "SYS_SOCKET, SYS_SOCKETPAIR and SYS_SETSOCKOPT"


@pytest.mark.parametrize(("machine", "arch"), ARCHES)
def test_options_of_sockets_are_allowed_but_for_tables_of_firewalls(
    filters: dict[str, list[Step]], machine: str, arch: int
) -> None:
    number = numbers_of(arch)["setsockopt"]
    denied = {
        (level, option)
        for level in (*range(300), 0xFFFFFFFF)
        for option in (*range(200), 1153, 0xFFFFFFFF)
        if judge(filters[machine], arch, number, (3, level, option)).error == errno.ENOPROTOOPT
    }
    of_version_4 = {(0, option) for option in (*range(64, 200), 1153, 0xFFFFFFFF)}
    assert denied == of_version_4 | {(41, 64), (41, 65)}


@pytest.mark.parametrize(("machine", "arch"), ARCHES)
def test_no_line_discipline_is_set(filters: dict[str, list[Step]], machine: str, arch: int) -> None:
    number = numbers_of(arch)["ioctl"]
    requests = (*range(0x5400, 0x5500), 0x80045430, 0xC0045878, 0x1_0000_5423)
    errors = {request: judge(filters[machine], arch, number, (0, request)).error for request in requests}
    assert {request for request, error in errors.items() if error} == {0x5423, 0x1_0000_5423}
    assert errors[0x5423] == errno.EINVAL


def test_there_is_no_x32_but_a_tracer_may_skip_a_call(filters: dict[str, list[Step]]) -> None:
    for number in (*range(X32_BIT, X32_BIT + 1024), 0x80000000, 0xFFFFFFFE):
        assert judge(filters["x86"], X86_64, number) == Verdict(errno.ENOSYS, reads_arguments=False)
    assert judge(filters["x86"], X86_64, 0xFFFFFFFF).error == 0


@pytest.mark.parametrize(("machine", "others"), [("x86", (AARCH64, ARM, RISCV64)), ("arm", (X86_64, I386, RISCV64))])
def test_calls_of_an_architecture_without_a_table_are_denied(
    filters: dict[str, list[Step]], machine: str, others: tuple[int, ...]
) -> None:
    for arch in others:
        assert {judge(filters[machine], arch, number).error for number in range(1024)} == {errno.ENOSYS}


def watched_numbers(arch: int, name: str) -> list[tuple[int, int]]:
    """Return the numbers of a call on this architecture, each with the bits of its ids."""
    numbers = ARM_WATCHED if arch == ARM else numbers_of(arch)
    is_old = arch in (I386, ARM) and name != "fchownat"
    found = [(numbers[name], 16 if is_old and f"{name}32" in numbers else 32)] if name in numbers else []
    return found + ([(numbers[f"{name}32"], 32)] if f"{name}32" in numbers else [])


def ids_of_calls() -> list[tuple[str, tuple[int, ...], tuple[int, ...]]]:
    """Return each call with the places of its user ids and those of its group ids."""
    owners = [(name, users[:1], users[1:]) for name, users in OWNERS.items()]
    return owners + [(name, users, ()) for name, users in USERS.items()] + [(n, (), g) for n, g in GROUPS.items()]


@pytest.mark.parametrize(("machine", "arch"), ARCHES)
@pytest.mark.parametrize("submitter", ["", " root"])
def test_ids_of_others_are_watched_and_own_ones_are_not(
    filters: dict[str, list[Step]], machine: str, arch: int, submitter: str
) -> None:
    steps, unheard = filters[f"{machine} watched{submitter}"], filters[f"{machine} unheard{submitter}"]
    uid, gid = (0, 0) if submitter else (OWN_UID, OWN_GID)
    for name, users, groups in ids_of_calls():
        for number, bits in watched_numbers(arch, name):
            unchanged = 2**bits - 1
            own = {**dict.fromkeys(users, uid), **dict.fromkeys(groups, gid)}
            for place in own:
                for value in (uid, gid, unchanged, NOBODY, 1234):
                    arguments = tuple((own | {place: value}).get(i, 77) for i in range(6))
                    is_own = value in (own[place], unchanged)
                    assert judge(steps, arch, number, arguments) == Verdict(0, True, not is_own), (name, arguments)
                    answer = judge(unheard, arch, number, arguments)
                    assert answer.error == (0 if is_own or submitter else errno.EPERM), (name, arguments)


@pytest.mark.parametrize(("machine", "arch"), ARCHES)
def test_attributes_are_watched_but_not_a_list_that_is_a_mode(
    filters: dict[str, list[Step]], machine: str, arch: int
) -> None:
    """`cp -p` and `install` set an access control list of three entries, which has 28 bytes."""
    for name in ATTRIBUTES:
        ((number, _),) = watched_numbers(arch, name)
        watched = {
            size
            for size in range(100)
            if judge(filters[f"{machine} watched"], arch, number, (1, 2, 3, size)).is_watched
        }
        assert watched == {*range(100)} - {28}
        assert not judge(filters[f"{machine} unheard"], arch, number, (1, 2, 3, 44)).error


@pytest.mark.parametrize(("machine", "arch"), ARCHES)
def test_a_listener_and_new_groups_of_root_are_watched(filters: dict[str, list[Step]], machine: str, arch: int) -> None:
    ((seccomp, _),) = watched_numbers(arch, "seccomp")
    steps = filters[f"{machine} watched"]
    asked = {
        (op, flags) for op in range(4) for flags in range(32) if judge(steps, arch, seccomp, (op, flags)).is_watched
    }
    assert asked == {(1, flags) for flags in range(32) if flags & 8}
    for number, _ in watched_numbers(arch, "setgroups"):
        assert judge(filters[f"{machine} watched root"], arch, number).is_watched
        assert judge(steps, arch, number) == Verdict(0, reads_arguments=False)


@pytest.mark.parametrize(("machine", "arch"), ARCHES)
def test_every_link_is_watched(filters: dict[str, list[Step]], machine: str, arch: int) -> None:
    numbers = {X86_64: (86, 265), I386: (9, 303), AARCH64: (37,), ARM: (9, 330)}[arch]
    for number in numbers:
        assert judge(filters[f"{machine} watched"], arch, number) == Verdict(0, reads_arguments=False, is_watched=True)
        assert judge(filters[f"{machine} unheard"], arch, number) == Verdict(0, reads_arguments=False)


@pytest.mark.parametrize(("machine", "arch"), ARCHES)
def test_watching_denies_nothing_more(filters: dict[str, list[Step]], machine: str, arch: int) -> None:
    for number in range(1024):
        plain = judge(filters[machine], arch, number, (1, 99))
        assert judge(filters[f"{machine} watched"], arch, number, (1, 99)).error == plain.error


@pytest.mark.parametrize(("machine", "arch"), ARCHES)
def test_every_question_for_space_is_watched(filters: dict[str, list[Step]], machine: str, arch: int) -> None:
    numbers = {X86_64: (137, 138), I386: (99, 100, 268, 269), AARCH64: (43, 44), ARM: (99, 100, 266, 267)}[arch]
    for number in numbers:
        assert judge(filters[f"{machine} watched"], arch, number) == Verdict(0, reads_arguments=False, is_watched=True)
        assert judge(filters[f"{machine} unheard"], arch, number) == Verdict(0, reads_arguments=False)
