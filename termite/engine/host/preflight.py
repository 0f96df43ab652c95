"""Check that this machine can run jobs, before the first job needs it.

Each `check_*` raises a UserError with a hint for the administrator. Only `read_machine` and the
checks of devices, paths and sandboxes read the machine; the others judge their arguments.
"""

import errno
import os
import platform
import re
import stat
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from termite.engine.errors import UserError
from termite.engine.host.native_programs import enter_command

OLDEST_KERNEL = (5, 11)  # overlayfs in a user namespace
TMPFS_UPPER_KERNEL = (6, 6)  # since then tmpfs has user.* xattrs, in which overlayfs of a user namespace keeps notes
SANDBOX_TRY_S = 20.0
FUSE_DEVICE = Path("/dev/fuse")


@dataclass(frozen=True, slots=True)
class Machine:
    """The facts that the checks judge. A sysctl is None if this kernel does not have it."""

    kernel: str
    filesystems: str
    overlay_can_load: bool
    max_user_namespaces: str | None
    unprivileged_userns_clone: str | None
    apparmor_restrict: str | None


def read_machine() -> Machine:
    """Return the facts of this machine."""
    kernel = platform.release()
    return Machine(
        kernel=kernel,
        filesystems=_read("/proc/filesystems") or "",
        overlay_can_load=_overlay_can_load(Path("/lib/modules") / kernel),
        max_user_namespaces=_read("/proc/sys/user/max_user_namespaces"),
        unprivileged_userns_clone=_read("/proc/sys/kernel/unprivileged_userns_clone"),
        apparmor_restrict=_read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
    )


def check_machine(machine: Machine) -> None:
    """Check the kernel, overlayfs and user namespaces. Raise UserError for the first defect."""
    check_kernel(machine.kernel)
    check_overlay(machine.filesystems, machine.overlay_can_load)
    check_user_namespaces(machine.max_user_namespaces, machine.unprivileged_userns_clone, machine.apparmor_restrict)


def check_kernel(release: str) -> None:
    """Raise UserError if the kernel is older than OLDEST_KERNEL."""
    if kernel_version(release) < OLDEST_KERNEL:
        oldest = ".".join(map(str, OLDEST_KERNEL))
        raise UserError(
            f"Linux {release} is too old: jobs need overlayfs in a user namespace, which came with {oldest}",
            hint="run the worker on a newer kernel (Debian 12 has 6.1)",
        )


def has_tmpfs_upper(release: str) -> bool:
    """Return True if a job's scratch directory can be a tmpfs."""
    return kernel_version(release) >= TMPFS_UPPER_KERNEL


def kernel_version(release: str) -> tuple[int, int]:
    """Return (6, 1) for "6.1.0-18-amd64", and (0, 0) if the text has no version."""
    numbers = re.match(r"(\d+)\.(\d+)", release)
    return (int(numbers[1]), int(numbers[2])) if numbers else (0, 0)


def check_overlay(filesystems: str, can_load: bool) -> None:
    """Raise UserError if the kernel has no overlayfs.

    `filesystems` is the text of /proc/filesystems. `can_load` is True if the kernel may be able to
    load overlayfs as a module.
    """
    if "overlay" not in filesystems.split() and not can_load:
        raise UserError("this kernel has no overlayfs, which every job needs", hint="as root: modprobe overlay")


def check_user_namespaces(
    max_user_namespaces: str | None, unprivileged_userns_clone: str | None, apparmor_restrict: str | None
) -> None:
    """Raise UserError if a sysctl forbids user namespaces.

    An argument is None if this kernel does not have that sysctl. The check is the same for a root
    worker, which drops root before it makes namespaces.
    """
    if max_user_namespaces is None:
        raise UserError("this kernel has no user namespaces", hint="it needs CONFIG_USER_NS=y")
    for name, value, bad, good in (
        ("user.max_user_namespaces", max_user_namespaces, "0", "10000"),
        ("kernel.unprivileged_userns_clone", unprivileged_userns_clone, "0", "1"),
        ("kernel.apparmor_restrict_unprivileged_userns", apparmor_restrict, "1", "0"),
    ):
        if value is not None and value.strip() == bad:
            raise UserError(
                f"user namespaces are forbidden here ({name} = {bad}), and every job runs in one",
                hint=f"as root: sysctl -w {name}={good} (and a line in /etc/sysctl.d/ to keep it)",
            )


def check_fuse(device: Path = FUSE_DEVICE, *, root: bool) -> None:
    """Raise UserError if `device` is not a FUSE device that this process can open.

    `root` says whether the worker runs as root, which changes the hint.
    """
    in_container = f"in a container: start it with --device {device}"
    try:
        status = device.stat()
    except OSError as error:
        raise UserError(f"there is no {device}", hint=f"as root: modprobe fuse; {in_container}") from error
    if not stat.S_ISCHR(status.st_mode):
        raise UserError(f"{device} is not a device", hint=f"as root: rm {device}, modprobe fuse; {in_container}")
    try:
        os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC))
    except PermissionError as error:
        hint = f"as root: chmod 0666 {device}, or run the worker as root"
        raise UserError(f"{device} may not be opened by this user", hint=in_container if root else hint) from error
    except OSError as error:
        fuse_is_off = error.errno in (errno.ENODEV, errno.ENXIO)
        hint = "as root: modprobe fuse" if fuse_is_off else in_container
        raise UserError(f"{device} cannot be opened: {error.strerror}", hint=hint) from error


def check_readable_by_others(path: Path, what: str) -> None:
    """Raise UserError if ordinary users cannot read `path`, a file or a directory.

    The mirrors of a root worker run as such users. The directories above `path` may be private,
    because `--reach` makes `path` reachable. `what` names the path in the message.
    """
    real = path.resolve()
    if not real.stat().st_mode & (stat.S_IXOTH if real.is_dir() else stat.S_IROTH):
        raise UserError(
            f"jobs run as users who cannot use {what} ({real}): it is closed to others",
            hint=f"chmod -R o+rX {real}, or install termite elsewhere (/opt), or run the worker as an ordinary user",
        )


def check_sandbox(sandbox: Path, uid: int | None) -> None:
    """Raise UserError if an empty program cannot run in the namespaces of a mirror.

    `uid` is the mirror's user, or None for the present one. This blocks for up to SANDBOX_TRY_S.
    """
    command = [*enter_command(sandbox, uid), sys.executable, "-I", "-S", "-c", ""]
    try:
        tried = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=SANDBOX_TRY_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(f"{sandbox} cannot be run: {error}", hint="install termite again") from error
    if tried.returncode:
        said = tried.stderr.decode(errors="replace").strip().splitlines()
        reason = said[-1] if said else f"exit code {tried.returncode}"
        raise UserError(f"cannot make a sandbox: {reason}", hint="jobs need user, mount and pid namespaces")


def why_calls_are_not_denied(sandbox: Path, uid: int | None = None) -> str:
    """Try the filter of system calls in the namespaces of a mirror, as `check_sandbox` does.

    Return the reason if the filter cannot be installed, else "". This blocks for up to
    SANDBOX_TRY_S.
    """
    return _why_it_fails(sandbox, uid, "deny", sys.executable, "-I", "-S", "-c", "")


def why_calls_are_not_watched(sandbox: Path, uid: int | None = None) -> str:
    """Try to watch system calls in the namespaces of a mirror, as `check_sandbox` does.

    Return the reason if that is impossible, else "". This blocks for up to SANDBOX_TRY_S.
    """
    return _why_it_fails(sandbox, uid, "watch")


def why_jobs_are_not_traced(sandbox: Path, uid: int | None = None) -> str:
    """Try to trace a command in the namespaces of a mirror, as `check_sandbox` does.

    Return the reason if that is impossible, else "". This blocks for up to SANDBOX_TRY_S.
    """
    return _why_it_fails(sandbox, uid, "trace")


def _why_it_fails(sandbox: Path, uid: int | None, *subcommand: str) -> str:
    command = [*enter_command(sandbox, uid), str(sandbox), *subcommand]
    try:
        tried = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=SANDBOX_TRY_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if tried.returncode == 0:
        return ""
    said = tried.stderr.decode(errors="replace").strip().splitlines()
    return said[-1].removeprefix(f"{sandbox.name}: ") if said else f"exit code {tried.returncode}"


def socket_guard(sandbox: Path) -> str:
    """Return how sockets without a path are kept inside a job: "landlock" or "namespaces".

    With "namespaces", such sockets still lead out of jobs whose rule gives them the machine's
    network. This blocks for up to SANDBOX_TRY_S.
    """
    said = subprocess.run([sandbox, "sockets"], stdin=subprocess.DEVNULL, capture_output=True, timeout=SANDBOX_TRY_S)
    return said.stdout.decode().strip()


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text()
    except OSError:  # this kernel does not have the file, and the caller says what that means
        return None


def _overlay_can_load(modules: Path) -> bool:
    """Return True, too, if the modules are not visible, as in a container: the mount decides."""
    builtin = _read(str(modules / "modules.builtin"))
    if builtin is None:
        return True
    return "/overlay.ko" in builtin or any(modules.glob("kernel/fs/overlayfs/overlay.ko*"))
