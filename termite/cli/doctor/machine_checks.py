"""Check whether this machine can make the sandboxes of jobs, as its worker would make them."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from termite.cli.doctor.finding import Finding, Level, failure_of
from termite.engine.errors import UserError
from termite.engine.host import preflight
from termite.engine.host.native_programs import enter_command, native_program
from termite.engine.host.own_cgroup import delegated_group
from termite.engine.worker.mirror_homes import DEFAULT_USER_BASE, MAX_MIRRORS, check_users

MACHINE = "this machine"
NATIVE = ("termite", "termite-shell", "termite-sandbox", "libtermite-exec.so")
HOST_NAME_TRY_S = 20.0
_PACKAGE = Path(__file__).parents[2]
# In a UTS namespace of its own, as each job: CLONE_NEWUTS is 0x04000000.
_SET_HOST_NAME = (
    "import ctypes, socket\n"
    "if ctypes.CDLL(None, use_errno=True).unshare(0x04000000): raise OSError(ctypes.get_errno(), 'unshare')\n"
    "socket.sethostname('doctor')"
)
_NO_GROUP = (
    "the memory of jobs is watched four times a second, because systemd has delegated no control group to a worker "
    "that is started here (Delegate=memory in its unit, or termite-worker -cgroup DIR)"
)
_SOCKET_GUARDS = {
    "landlock": "jobs cannot reach abstract sockets outside of themselves, because Landlock forbids it",
    "namespaces": "jobs cannot reach abstract sockets outside of themselves, because each has a network namespace "
    "(this kernel has no Landlock ABI 6 of Linux 6.12); only jobs with a Network rule reach those of this machine",
}


def worker_user() -> int | None:
    """Return the user id that the jobs of a worker of ours run as, or None for our own."""
    return DEFAULT_USER_BASE if os.geteuid() == 0 else None


def check_this_machine() -> Iterator[Finding]:
    """Yield the findings about the kernel, the devices and the sandboxes of this machine."""
    missing = list(_native_programs())
    yield from missing or [Finding(MACHINE, "programs", Level.OK, "the native programs are there")]
    yield from _kernel_checks()
    if os.geteuid() == 0:
        yield from _checks_of_root()
    if not missing:
        yield from _sandbox_checks(native_program("termite-sandbox"))


def _native_programs() -> Iterator[Finding]:
    for name in NATIVE:
        try:
            path = native_program(name)
        except UserError as error:
            yield failure_of(MACHINE, "programs", error)
            continue
        if not os.access(path, os.R_OK if path.suffix == ".so" else os.X_OK):
            text = f"{path} may not be used by this user"
            yield Finding(MACHINE, "programs", Level.FAILURE, text, f"chmod a+rx {path}")


def _kernel_checks() -> Iterator[Finding]:
    machine = preflight.read_machine()
    sysctls = (machine.max_user_namespaces, machine.unprivileged_userns_clone, machine.apparmor_restrict)
    overlay = (machine.filesystems, machine.overlay_can_load)
    scratch = "memory" if preflight.has_tmpfs_upper(machine.kernel) else "disk"
    kernel = f"Linux {machine.kernel}, scratch files in {scratch}"
    checks: tuple[tuple[str, str, Callable[[], None]], ...] = (
        ("kernel", kernel, partial(preflight.check_kernel, machine.kernel)),
        ("overlay", "overlayfs is there", partial(preflight.check_overlay, *overlay)),
        ("namespaces", "user namespaces are allowed", partial(preflight.check_user_namespaces, *sysctls)),
        ("fuse", "/dev/fuse can be opened", partial(preflight.check_fuse, root=os.geteuid() == 0)),
    )
    for about, text, check in checks:
        try:
            check()
        except UserError as error:
            yield failure_of(MACHINE, about, error)
        else:
            yield Finding(MACHINE, about, Level.OK, text)


def _checks_of_root() -> Iterator[Finding]:
    """Check what only the worker of root needs: users for jobs, which must reach our files."""
    try:
        check_users(range(DEFAULT_USER_BASE, DEFAULT_USER_BASE + MAX_MIRRORS))
        for path, what in ((Path(sys.executable), "Python"), (_PACKAGE, "termite")):
            preflight.check_readable_by_others(path, what)
    except UserError as error:
        yield failure_of(MACHINE, "users", error)
    else:
        yield Finding(MACHINE, "users", Level.OK, "the users that jobs of root's worker run as are free")


def _sandbox_checks(sandbox: Path) -> Iterator[Finding]:
    uid = worker_user()
    try:
        preflight.check_sandbox(sandbox, uid)
    except UserError as error:
        yield failure_of(MACHINE, "sandbox", error)
        return
    yield Finding(MACHINE, "sandbox", Level.OK, "the namespaces of jobs can be made")
    if unfiltered := preflight.why_calls_are_not_denied(sandbox, uid):
        text = f"jobs may make system calls that no build needs: {unfiltered}"
        yield Finding(
            MACHINE, "seccomp", Level.WARNING, text, "run the worker on a kernel with CONFIG_SECCOMP_FILTER=y"
        )
    else:
        yield Finding(MACHINE, "seccomp", Level.OK, "jobs are denied system calls that no build needs")
        yield _watch_check(sandbox, uid)
        yield _trace_check(sandbox, uid)
    group = delegated_group()
    yield Finding(MACHINE, "cgroup", Level.OK, f"a worker divides its control group {group}" if group else _NO_GROUP)
    guard = preflight.socket_guard(sandbox)
    yield Finding(MACHINE, "landlock", Level.OK, _SOCKET_GUARDS.get(guard, f"abstract sockets: {guard or 'unknown'}"))
    yield _host_name_check(sandbox, uid)


def _watch_check(sandbox: Path, uid: int | None) -> Finding:
    if not (reason := preflight.why_calls_are_not_watched(sandbox, uid)):
        return Finding(MACHINE, "watch", Level.OK, "calls that need the master's machine send a command there")
    text = f"commands that change owners, set attributes, link files or ask for space go wrong in jobs: {reason}"
    hint = "run the worker outside of the container that watches its system calls"
    return Finding(MACHINE, "watch", Level.WARNING, text, hint)


def _trace_check(sandbox: Path, uid: int | None) -> Finding:
    """Return whether jobs can be traced. They run all the same, so that this is no defect."""
    reason = preflight.why_jobs_are_not_traced(sandbox, uid)
    text = f"the paths that commands name cannot be noted here: {reason}" if reason else "jobs can be traced"
    return Finding(MACHINE, "trace", Level.OK, text)


def _host_name_check(sandbox: Path, uid: int | None) -> Finding:
    command = [*enter_command(sandbox, uid), sys.executable, "-I", "-S", "-c", _SET_HOST_NAME]
    try:
        tried = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=HOST_NAME_TRY_S)
        is_set = tried.returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        is_set = False
    if is_set:
        return Finding(MACHINE, "host-name", Level.OK, "jobs get the host name of the master")
    text = "jobs see the host name of this machine and not that of the master, because sethostname is forbidden here"
    return Finding(
        MACHINE, "host-name", Level.WARNING, text, "in a container: allow sethostname in its seccomp profile"
    )
