"""Find the files of the control groups (cgroups) in which this process is.

A worker in a container or in a systemd unit has a group of its own. The kernel then counts there
what happens to the processes of this worker, apart from the rest of the machine. Both versions of
cgroups are known: each controller of version 1 has a mount, version 2 has one mount for all.
"""

import math
import os
from collections.abc import Iterator
from pathlib import Path

from termite.engine.paths import is_inside, parse_mount_lines


def find_group(controller: str) -> tuple[Path, Path] | None:
    """Return the directory of our group that has `controller`, and the mount point above it.

    Return None if this machine does not show it to us.
    """
    try:
        groups, mounts = Path("/proc/self/cgroup").read_bytes(), Path("/proc/self/mountinfo").read_bytes()
    except OSError:
        return None
    return parse_group(groups, mounts, controller)


def delegated_group() -> Path | None:
    """Return our group of version 2 if systemd has delegated it with its memory, else None.

    systemd marks a group that belongs to its service (`Delegate=`) by an extended attribute.
    """
    found = find_group("memory")
    if found is None:
        return None
    try:
        if "memory" not in (found[0] / "cgroup.controllers").read_text().split():
            return None
        marks = {"user.delegate", "trusted.delegate"} & set(os.listxattr(found[0]))
        return found[0] if any(os.getxattr(found[0], mark) == b"1" for mark in marks) else None
    except OSError:  # a group of version 1, or one that is not ours
        return None


def read_cpu_quota() -> float:
    """Return how many cores our control groups let us keep busy; `inf` if they do not say."""
    found = find_group("cpu")
    return least_quota(*found) if found else math.inf


def least_quota(group: Path, top: Path) -> float:
    """Return the least quota of `group` and the groups above it, up to the mount point `top`.

    Version 2 has `cpu.max`, with quota and period or "max", and version 1 a file for each, with -1
    for none.
    """
    least = math.inf
    for directory in (group, *group.parents):
        if not directory.is_relative_to(top):
            break
        for names in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
            try:
                words = [word for name in names for word in (directory / name).read_text().split()]
                quota, period = (math.inf if word == "max" else int(word) for word in words)
            except (OSError, ValueError):  # the other version, or the group at the top, which has no limit
                continue
            if quota > 0 and period > 0:
                least = min(least, quota / period)
    return least


def parse_group(groups: bytes, mounts: bytes, controller: str) -> tuple[Path, Path] | None:
    """Do as `find_group`, with texts of /proc/self/cgroup and /proc/self/mountinfo (proc(5))."""
    for line in os.fsdecode(groups).split("\n"):
        number, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        is_second_version = number == "0" and not names
        if not is_second_version and controller not in names.split(","):
            continue
        for root, point in _mounts(mounts, "" if is_second_version else controller):
            # In a container the mount may begin at our own group, which /proc names from the top.
            if is_inside(path, root):
                return Path(point) / path[len(root) :].lstrip("/"), Path(point)
    return None


def _mounts(mounts: bytes, controller: str) -> Iterator[tuple[str, str]]:
    """Yield root and mount point of each mount of a version 1 controller, or ("") of version 2."""
    for mount in parse_mount_lines(mounts):
        is_of_kind = mount.kind == (b"cgroup" if controller else b"cgroup2")
        if is_of_kind and (not controller or controller.encode() in mount.options.split(b",")):
            yield os.fsdecode(mount.root), os.fsdecode(mount.point)
