"""Show what the tasks of a daemon wait for, so that a person sees where it stands still."""

import logging
import signal
from collections.abc import Iterator
from types import CodeType, FrameType

import trio

MOST_LINES = 2000
_TRIO = trio.__file__.removesuffix("__init__.py")
_DEEPEST = 40  # tasks within tasks; termite has some ten

log = logging.getLogger(__name__)


async def show_tasks_on_signal() -> None:
    """Log the tree of tasks whenever SIGUSR1 comes, until cancelled."""
    with trio.open_signal_receiver(signal.SIGUSR1) as signals:
        async for _ in signals:
            try:
                lines = task_lines()
                log.info("tasks-shown tasks=%d", len(lines), extra={"further_lines": lines[:MOST_LINES]})
            except Exception:  # around the look into trio: a daemon must not die because somebody is curious
                log.exception("tasks-not-shown")


def task_lines() -> list[str]:
    """Return a line for each task of this trio run: its name, and where it waits.

    A task stands below its parent, indented by two spaces more.
    """
    root = trio.lowlevel.current_root_task()
    return list(_lines_of(root, 0)) if root is not None else []


def _lines_of(task: trio.lowlevel.Task, depth: int) -> Iterator[str]:
    yield f"{'  ' * depth}{task.name}: {_place_of(task)}"
    if depth < _DEEPEST:
        for nursery in task.child_nurseries:
            for child in sorted(nursery.child_tasks, key=lambda each: each.name):
                yield from _lines_of(child, depth + 1)


def _place_of(task: trio.lowlevel.Task) -> str:
    """Return the innermost place outside of trio at which a task waits, and what it calls there."""
    frames = [(frame, line) for frame, line in task.iter_await_frames()]
    if not frames:
        return "not started"
    ours = [entry for entry in frames if not entry[0].f_code.co_filename.startswith(_TRIO)] or frames
    frame, line = ours[-1]
    called = [each for each, _ in frames[frames.index(ours[-1]) + 1 :]]  # the first one is what our code calls
    below = f", in {_name_of(called[0])}" if called else ""
    return f"{_file_of(frame)}:{line} in {_name_of(frame)}{below}"


def _name_of(frame: FrameType) -> str:
    code: CodeType = frame.f_code
    return code.co_qualname


def _file_of(frame: FrameType) -> str:
    path = frame.f_code.co_filename
    return path[path.rindex("/termite/") + 1 :] if "/termite/" in path else path
