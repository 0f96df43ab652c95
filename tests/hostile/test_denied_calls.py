"""A job makes calls that no build needs: each ends with an error, by every entry of the kernel.

Nothing here connects to anything. All calls have wrong arguments, and would do no harm if allowed.
"""

import errno
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from termite.engine.host.native_programs import native_program
from tests.hostile.filters import numbers_in
from tests.native.sandboxes import USERS, Job, Sandboxes, sandboxes_of, small_base

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="the calls are made by the entries of x86-64")
needs_root = pytest.mark.needs_root("the kernel itself refuses these calls to others")

HEADERS = Path("/usr/include/x86_64-linux-gnu/asm")
ENTRIES = {"x86_64": "unistd_64.h", "i386": "unistd_32.h"}
ALG, VSOCK, PACKET, INET, INET6, UNIX, NETLINK = 38, 40, 17, 2, 10, 1, 16
INTERNET = ((INET, 1, 6), (INET6, 1, 6), (INET, 2, 17), (INET6, 0o2004002, 17))  # the last one with both flags
FANOTIFY_IDS, BAD_FLAGS = 0x200, 0xFFFF
TIOCSETD, TIOCGWINSZ = 0x5423, 0x5413


@dataclass(frozen=True)
class Call:
    """A call has a name, wrong arguments for denied_calls.c, and the entries that have it."""

    name: str
    error: int
    arguments: str = ""
    label: str = ""
    entries: tuple[str, ...] = ("x86_64", "i386")

    def text(self, entry: str) -> str:
        number = numbers_in(HEADERS / ENTRIES[entry])[self.name]
        return ":".join(filter(None, (entry, str(number), self.arguments)))


DENIED = (
    Call("socket", errno.EAFNOSUPPORT, f"{VSOCK}:1:0", "vsock"),
    Call("socket", errno.EAFNOSUPPORT, f"{ALG}:5:0", "alg"),
    Call("socket", errno.EAFNOSUPPORT, f"{PACKET}:3:0", "packet"),
    Call("socket", errno.ESOCKTNOSUPPORT, f"{INET}:10:0", "packet by its old name"),
    Call("socket", errno.EPROTONOSUPPORT, f"{INET}:1:132", "SCTP"),
    Call("socket", errno.EPROTONOSUPPORT, f"{INET6}:1:262", "MPTCP"),
    Call("socket", errno.EPROTONOSUPPORT, f"{NETLINK}:3:12", "netfilter"),
    Call("socket", errno.EPROTONOSUPPORT, f"{NETLINK}:3:16", "generic netlink"),
    Call("socketpair", errno.EAFNOSUPPORT, f"{VSOCK}:1:0:@", "vsock"),
    Call("socketcall", errno.ENOSYS, f"1:@{VSOCK},1,0", "vsock", ("i386",)),
    Call("socketcall", errno.ENOSYS, f"8:@{UNIX},1,0", "pair", ("i386",)),
    Call("socketcall", errno.ENOSYS, "14:@0,0,64,0,0", "an option", ("i386",)),
    Call("setsockopt", errno.ENOPROTOOPT, "0:0:64:@:4", "iptables"),
    Call("setsockopt", errno.ENOPROTOOPT, "0:0:128:@:4", "ebtables"),
    Call("setsockopt", errno.ENOPROTOOPT, "0:41:64:@:4", "ip6tables"),
    Call("ioctl", errno.EINVAL, f"0:{TIOCSETD}:@", "line discipline"),
    Call("add_key", errno.ENOSYS, "0:0:0:0:0"),
    Call("request_key", errno.ENOSYS, "0:0:0:0"),
    Call("keyctl", errno.ENOSYS, "0:-3:0", "get a keyring"),
    Call("keyctl", errno.ENOSYS, "1:@", "join by name"),
    Call("keyctl", errno.ENOSYS, "1:0", "join a new keyring"),
    Call("userfaultfd", errno.ENOSYS, "1"),
    Call("io_uring_setup", errno.ENOSYS, "1:@"),
    Call("io_uring_enter", errno.ENOSYS, "-1:0:0:0"),
    Call("io_uring_register", errno.ENOSYS, "-1:0:0:0"),
    Call("bpf", errno.EPERM, "9999:0:0"),
    Call("perf_event_open", errno.EPERM, f"0:0:0:-1:{BAD_FLAGS}"),
    Call("fanotify_init", errno.EPERM, f"{FANOTIFY_IDS}:0"),
    Call("open_by_handle_at", errno.EPERM, "-1:0:0"),
    Call("syslog", errno.EPERM, "10:0:0"),
    Call("kexec_load", errno.EPERM, "0:99:0:0"),
    Call("kexec_file_load", errno.EPERM, "-1:-1:0:0:0", entries=("x86_64",)),
    Call("init_module", errno.EPERM, "0:0:0"),
    Call("finit_module", errno.EPERM, "-1:0:0"),
    Call("delete_module", errno.EPERM, "0:0"),
)
ALLOWED = (
    Call("socketpair", 0, f"{UNIX}:1:0:@"),
    *(Call("socket", 0, f"{family}:2:0", f"family {family}") for family in (UNIX, INET, INET6)),
    *(Call("socket", 0, f"{family}:{kind}:{protocol}", "internet") for family, kind, protocol in INTERNET),
    *(Call("socket", 0, f"{NETLINK}:3:{protocol}", f"netlink {protocol}") for protocol in (0, 4, 15)),
    Call("socketcall", errno.EOPNOTSUPP, "4:@0,0", "listen", ("i386",)),
    Call("setsockopt", errno.ENOTSOCK, "0:0:1:@:4", "type of service"),
    Call("setsockopt", errno.ENOTSOCK, "0:1:64:@:4", "an option of sockets"),
    Call("setsockopt", errno.ENOTSOCK, "0:41:66:@:4", "an option of IPv6"),
    Call("ioctl", errno.ENOTTY, f"0:{TIOCGWINSZ}:@", "size of the window"),
)
CASES = [
    pytest.param(entry, call, id=f"{entry}-{call.name}{'-' * bool(call.label)}{call.label}")
    for call in DENIED
    for entry in call.entries
]


def x32(number: int) -> str:
    return f"x32:{number}"


@pytest.fixture(scope="session")
def caller(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("denied") / "denied_calls"
    source = Path(__file__).parent / "denied_calls.c"
    command = ["gcc", "-O1", "-Wall", "-Wextra", "-Werror", "-D_GNU_SOURCE", "-static", str(source), "-o", str(program)]
    subprocess.run(command, check=True)
    return program


@pytest.fixture(scope="session")
def base(caller: Path) -> Iterator[Path]:
    with small_base(native_program("termite-sandbox")) as base:
        shutil.copy(caller, base / "root/usr/bin/denied_calls")
        shutil.copy(caller, base / "denied_calls")
        yield base


@pytest.fixture(scope="session", params=USERS)
def sandboxes(base: Path, request: pytest.FixtureRequest) -> Sandboxes:
    return sandboxes_of(base, request.param)


@pytest.fixture(scope="session")
def unfiltered(sandboxes: Sandboxes) -> Sandboxes:
    """Return sandboxes on a kernel that cannot install filters."""
    return replace(sandboxes, enter=(str(sandboxes.base / "denied_calls"), "no-filters", *sandboxes.enter))


def ends(sandboxes: Sandboxes, *calls: str) -> list[int]:
    """Return how the calls of a job end: 0, or the error's number."""
    return parsed(sandboxes.run(["denied_calls", "call", *calls]).out)


def parsed(said: str) -> list[int]:
    return [0 if word == "ok" else int(word) for word in said.split()]


@pytest.mark.parametrize(("entry", "call"), CASES)
def test_it_is_denied_to_a_job(sandboxes: Sandboxes, entry: str, call: Call) -> None:
    assert ends(sandboxes, call.text(entry)) == [call.error]


@needs_root
@pytest.mark.parametrize(("entry", "call"), CASES)
def test_it_is_the_filter_that_denies_it_also_to_the_most_privileged(caller: Path, entry: str, call: Call) -> None:
    """The kernel alone gives another answer, so the filter is the cause."""
    command = [str(caller), "call", call.text(entry)]
    denied = subprocess.run([native_program("termite-sandbox"), "deny", *command], capture_output=True, check=True)
    assert parsed(denied.stdout.decode()) == [call.error]
    alone = subprocess.run(command, capture_output=True, check=True)
    if call.error != errno.EPERM and parsed(alone.stdout.decode()) == [call.error]:
        pytest.skip(f"this kernel has no {call.label or call.name}")
    assert parsed(alone.stdout.decode()) != [call.error]


def test_what_builds_need_of_the_same_calls_is_there(sandboxes: Sandboxes) -> None:
    for entry in ENTRIES:
        calls = [call for call in ALLOWED if entry in call.entries]
        # socketcall's listen reaches the socket that is fd 0's: /dev/null is none.
        expected = [errno.ENOTSOCK if call.name == "socketcall" else call.error for call in calls]
        assert ends(sandboxes, *(call.text(entry) for call in calls)) == expected


def test_x32_is_a_kernel_without_x32(sandboxes: Sandboxes) -> None:
    numbers = numbers_in(HEADERS / "unistd_64.h")
    assert ends(sandboxes, *(x32(numbers[name]) for name in ("getpid", "socket", "keyctl"))) == [errno.ENOSYS] * 3


def test_a_job_has_one_filter_and_no_more_rights_than_without(sandboxes: Sandboxes, unfiltered: Sandboxes) -> None:
    show = "grep -E '^(NoNewPrivs|Cap|Seccomp)' /proc/self/status"
    filtered, plain = (status_of(kind.sh(show)) for kind in (sandboxes, unfiltered))
    assert (filtered.pop("Seccomp"), filtered.pop("Seccomp_filters")) == ("2", "1")
    assert (plain.pop("Seccomp"), plain.pop("Seccomp_filters")) == ("2", "1"), "that of the test"
    assert filtered == plain
    assert (filtered["NoNewPrivs"], filtered["CapEff"]) == ("1", "0" * 16)


def status_of(job: Job) -> dict[str, str]:
    lines = (line.split() for line in job.out.splitlines())
    return {words[0].removesuffix(":"): words[1] for words in lines}


def test_where_no_filter_can_be_installed_jobs_run_and_it_is_said(sandboxes: Sandboxes, unfiltered: Sandboxes) -> None:
    assert "unfiltered=" not in sandboxes.sh("true").announced
    job = unfiltered.sh("echo done")
    assert (job.out, job.status) == ("done\n", 0)
    said = f"unfiltered=cannot install the filter of system calls: {os.strerror(errno.ENOSYS)}\0"
    assert job.announced.endswith(said)


def test_a_tracer_may_still_skip_a_call(sandboxes: Sandboxes) -> None:
    """proot and fakeroot-ng do: the number is then -1, which is no x32 call."""
    assert sandboxes.run(["denied_calls", "skip"]).out == "skipped\n"
