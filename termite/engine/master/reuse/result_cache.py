"""Keep what all jobs of a master share to use results again."""

import os

import msgspec

from termite.engine.decide.environment import encoded_words, environment_of
from termite.engine.master.job import Job
from termite.engine.master.placement.traced_jobs import trace_mode
from termite.engine.model import CacheMode, Command, MachineFacts, TerminalWish, TraceMode
from termite.engine.recall.look_up.fingerprints import UNKEYED, CommandIdentity, weak_fingerprint


class ResultCache:
    """The results that jobs of one master use again, and leave.

    There is none if the cache is off. `env_exclude` are the patterns of variables that no job gets.
    """

    def __init__(self, mode: CacheMode, env_exclude: tuple[str, ...], root: bytes) -> None:
        self._mode = mode
        # No job that may be recalled gets a variable that no fingerprint has.
        self._left_out = (*env_exclude, *UNKEYED)
        self._root = root
        self._ids = (os.getuid(), os.getgid(), *sorted(os.getgroups()))

    def identify(self, job: Job, command: Command, machine: MachineFacts | None) -> None:
        """Give a job its identity if its result may be recalled, or stored.

        `machine` is the one whose answers the command gets, or None if it asks for none.
        """
        if not _is_recallable(job):
            return
        request, rule = job.request, job.verdict.rule if job.verdict else None
        memory_bytes = rule.memory_bytes if rule else 0
        job.identity = CommandIdentity(
            argv=encoded_words(command.argv),
            exe=os.fsencode(command.exe),
            search=command.search,
            cwd=os.fsencode(command.cwd),
            env=environment_of(command).without(self._left_out).remote_words,
            umask=request.umask,
            root=self._root,
            stdin=b"closed" if request.stdin_closed else b"ended" if request.stdin_ended else b"",
            merge=request.merge,
            ids=self._ids,
            limits=f"{request.inherited.limits} {memory_bytes}",
            nice=request.inherited.nice,
            ignored=request.inherited.ignored,
            terminal=_terminal_words(job.terminal),
            machine=msgspec.msgpack.encode(machine) if machine else b"",
        )
        job.weak = weak_fingerprint(job.identity)
        job.is_stored = self._mode is CacheMode.ON


def _is_recallable(job: Job) -> bool:
    """Return whether nothing but the tree and the command decides what the job does.

    A job whose standard input is no empty one may read anything there.
    """
    rule = job.verdict.rule if job.verdict else None
    if job.request.has_stdin or job.request.is_stdin_terminal or (rule is not None and rule.recurse):
        return False
    return trace_mode(job, TraceMode.EXACT) is not TraceMode.OFF


def _terminal_words(terminal: TerminalWish | None) -> tuple[int, ...]:
    """Return what a command can learn of its terminal, () if it has none."""
    if terminal is None:
        return ()
    size = msgspec.structs.astuple(terminal.size)
    return (*size, terminal.stdin, terminal.stdout, terminal.stderr, terminal.is_stderr_apart)
