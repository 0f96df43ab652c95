"""Learn how long commands took on workers, so that short ones run on the master's machine.

engine/decide/short_commands.py keeps the times, and says which commands are short.
"""

from termite.engine.decide.command_memory import CommandKey
from termite.engine.master.shared import Master
from termite.engine.paths import is_within
from termite.engine.tree.logic.temporary_names import temporary_above
from termite.engine.wire.protocol.messages import Ran


def learn_run_time(master: Master, key: CommandKey, ran: Ran, total_s: float, *, is_alone: bool) -> None:
    """Record the run time of the command, so that a short one runs locally the next time.

    `total_s` is the time from dispatch to published results. A command that might behave otherwise
    locally is forgotten: it wrote outside the tree, read from a pipe, or was killed. A command that
    leaves something in a temporary directory is forgotten, too: later jobs see a private file only
    if a worker has made it. If a command is not alone in changing a file, it stays remote: only
    remote results are compared with the disk.
    A command that could not be started has no run time. Exit codes do not matter, because makefiles
    often test something with a command that fails.
    """
    root = master.writable_root
    has_left = any(temporary_above(change.path) and not is_within(change.path, root) for change in ran.changes)
    if ran.exec_errno or ran.exit.signal or ran.dropped or has_left or ran.stdin_taken or not is_alone:
        master.short.forget(key)
        return
    took_s = (ran.ended_ns - ran.started_ns) / 1e9
    master.short.record_remote(key, took_s, max(total_s - took_s, 0.0))
