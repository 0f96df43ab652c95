"""What this machine must have to run jobs, found out before a job needs it.

Each `check_*` is given what it judges, and raises a UserError that says what to do; `read_machine` reads it.
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
TMPFS_UPPER_KERNEL = (6, 6)  # tmpfs learns user.* xattrs, which such an overlay keeps its notes in
SANDBOX_TRY_S = 20.0
FUSE_DEVICE = Path("/dev/fuse")


@dataclass(frozen=True, slots=True)
class Machine:
    """What the checks judge. A sysctl is None where this kernel does not have it."""

    kernel: str
    filesystems: str
    overlay_can_load: bool
    max_user_namespaces: str | None
    unprivileged_userns_clone: str | None
    apparmor_restrict: str | None


def read_machine() -> Machine:
    """This machine."""
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
    """Kernel, overlayfs, user namespaces."""
    check_kernel(machine.kernel)
    check_overlay(machine.filesystems, machine.overlay_can_load)
    check_user_namespaces(machine.max_user_namespaces, machine.unprivileged_userns_clone, machine.apparmor_restrict)


def check_kernel(release: str) -> None:
    """At least OLDEST_KERNEL."""
    if kernel_version(release) < OLDEST_KERNEL:
        oldest = ".".join(map(str, OLDEST_KERNEL))
        raise UserError(
            f"Linux {release} is too old: jobs need overlayfs in a user namespace, which came with {oldest}",
            hint="run the worker on a newer kernel (Debian 12 has 6.1)",
        )


def has_tmpfs_upper(release: str) -> bool:
    """Whether a job's scratch directory can be a tmpfs."""
    return kernel_version(release) >= TMPFS_UPPER_KERNEL


def kernel_version(release: str) -> tuple[int, int]:
    """(6, 1) of "6.1.0-18-amd64"."""
    numbers = re.match(r"(\d+)\.(\d+)", release)
    return (int(numbers[1]), int(numbers[2])) if numbers else (0, 0)


def check_overlay(filesystems: str, can_load: bool) -> None:
    """`filesystems` is /proc/filesystems; `can_load`: the kernel may load overlay as a module when it is asked to."""
    if "overlay" not in filesystems.split() and not can_load:
        raise UserError("this kernel has no overlayfs, which jobs run on", hint="as root: modprobe overlay")


def check_user_namespaces(
    max_user_namespaces: str | None, unprivileged_userns_clone: str | None, apparmor_restrict: str | None
) -> None:
    """The sysctls that forbid them; a root worker gives up root before it makes them, so it is the same for both."""
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
    """/dev/fuse is there, and may be opened. Root gives its mirrors a node of their own, so it only must be there."""
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
    """A root worker's mirrors are users without privilege: `path` must be theirs to read (`--reach` opens the way)."""
    real = path.resolve()
    if not real.stat().st_mode & (stat.S_IXOTH if real.is_dir() else stat.S_IROTH):
        raise UserError(
            f"{what} ({real}) cannot be used by the users that jobs run as: it is closed to others",
            hint=f"chmod -R o+rX {real}, or install termite elsewhere (/opt), or run the worker as an ordinary user",
        )


def check_sandbox(sandbox: Path, uid: int | None) -> None:
    """Start nothing in the namespaces of a mirror, to see that it works."""
    command = [*enter_command(sandbox, uid), sys.executable, "-I", "-S", "-c", ""]
    try:
        tried = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=SANDBOX_TRY_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(f"{sandbox} cannot be run: {error}", hint="install termite again") from error
    if tried.returncode:
        said = tried.stderr.decode(errors="replace").strip().splitlines()
        reason = said[-1] if said else f"exit code {tried.returncode}"
        raise UserError(f"no sandbox can be made here: {reason}", hint="jobs need user, mount and pid namespaces")


def why_calls_are_not_denied(sandbox: Path) -> str:
    """Try the filter of system calls in the namespaces of a mirror. Return the reason if it fails, "" if it works."""
    command = [*enter_command(sandbox, None), str(sandbox), "deny", sys.executable, "-I", "-S", "-c", ""]
    try:
        tried = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=SANDBOX_TRY_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if tried.returncode == 0:
        return ""
    said = tried.stderr.decode(errors="replace").strip().splitlines()
    return said[-1].removeprefix(f"{sandbox.name}: ") if said else f"exit code {tried.returncode}"


def socket_guard(sandbox: Path) -> str:
    """Return how sockets without a path are kept from leading out of a job: "landlock", or "namespaces".

    With "namespaces" they still lead out of jobs whose rule gives them the machine's network.
    """
    said = subprocess.run([sandbox, "sockets"], stdin=subprocess.DEVNULL, capture_output=True, timeout=SANDBOX_TRY_S)
    return said.stdout.decode().strip()


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text()
    except OSError:
        return None


def _overlay_can_load(modules: Path) -> bool:
    """Also where the modules cannot be seen, as in a container: then the mount will tell."""
    builtin = _read(str(modules / "modules.builtin"))
    if builtin is None:
        return True
    return "/overlay.ko" in builtin or any(modules.glob("kernel/fs/overlayfs/overlay.ko*"))
