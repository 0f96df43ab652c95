"""Make a control group (cgroup) for the mirrors and jobs of a worker, with a limit of memory.

The kernel counts there what belongs to no process: files in memory, what is in flight in sockets,
and buffers. If the group is full, the kernel kills in the group, and other programs are spared. The
limit of each job is kept by its mirror, because a group for each job would cost system calls.

In namespaces of its own, a job may mount the file system of its control group. An ordinary user's
worker has the job's user, so that the job may freeze the group, or kill all that is in it.
Therefore each lease has a group of its own below that of all: its master harms nobody else.
"""

import contextlib
import logging
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from termite.engine.errors import UserError
from termite.engine.host.own_cgroup import delegated_group

AUTO, NONE = "auto", "none"
_NAME = "termite-jobs-"  # with the pid of the worker

log = logging.getLogger(__name__)


@contextlib.contextmanager
def job_group(wanted: str, most_bytes: int) -> Iterator[Path | None]:
    """Yield the file by which a process joins the group. Remove the group at the end of the block.

    `wanted` is the directory of a group that the worker may divide, AUTO or NONE. AUTO means our
    own group if systemd has delegated it. Yield None if there is no group. Raise UserError if the
    directory `wanted` is none, or must not be used.
    """
    top = delegated_group() if wanted == AUTO else Path(wanted)
    group = None
    if top is not None and wanted != NONE:
        try:
            group = _make(top, most_bytes, is_own=wanted == AUTO)
            log.info("job-group-made path=%s bytes=%d", group, most_bytes)
        except OSError as error:
            if wanted != AUTO:
                hint = "it must have the memory controller, no processes, and belong to the worker's user"
                raise UserError(f"-cgroup {top} cannot be used: {error.strerror}", hint) from error
            log.warning("job-group-not-made path=%s reason=%s", top, error.strerror)
    try:
        yield group / "cgroup.procs" if group else None
    finally:
        if group is not None:
            _remove(group)


@contextlib.contextmanager
def lease_group(procs: Path | None) -> Iterator[Path | None]:
    """Yield the file by which the mirror of one lease joins a group of its own, for the block.

    `procs` is that of the group of all jobs, or None. Raise OSError if the group cannot be made.
    Version 1 has neither files that kill nor files that freeze beside its limits: there, all share
    the group.
    """
    if procs is None or not (procs.parent / "cgroup.controllers").exists():
        yield procs
        return
    group = procs.parent / f"lease-{secrets.token_hex(8)}"  # never one that a job has left frozen
    group.mkdir()
    try:
        yield group / procs.name
    finally:
        _remove(group)


def _make(top: Path, most_bytes: int, *, is_own: bool) -> Path:
    """Make the group below `top`. If `is_own`, this process is in `top`. Raise OSError."""
    group = top / f"{_NAME}{os.getpid()}"
    _remove_dead(top)
    limit = "memory.limit_in_bytes"
    if (top / "cgroup.controllers").exists():  # version 2: only groups without processes are divided
        if is_own:
            leaf = top / f"termite-worker-{os.getpid()}"
            leaf.mkdir(exist_ok=True)
            (leaf / "cgroup.procs").write_text("0")
        (top / "cgroup.subtree_control").write_text("+memory")
        limit = "memory.max"
    elif not (top / limit).exists():
        raise FileNotFoundError(0, "it has no memory controller")
    group.mkdir(exist_ok=True)
    try:
        (group / limit).write_text(str(most_bytes))
    except OSError:
        group.rmdir()
        raise
    return group


def _remove_dead(top: Path) -> None:
    """Remove the groups of workers that were killed. The kernel removes only empty ones."""
    for group in top.glob(f"{_NAME}*"):
        if not Path("/proc", group.name.removeprefix(_NAME)).exists():
            _remove(group)


def _remove(group: Path) -> None:
    """Remove a group, and the empty ones below it, which jobs may have made.

    If a job is still being killed in it, the next worker removes it.
    """
    for directory, _, _ in os.walk(group, topdown=False):
        with contextlib.suppress(OSError):  # EBUSY: a job is still being killed
            os.rmdir(directory)
