"""Hold the state that all jobs of a master share, and the configuration from which it is made."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import trio

from termite import __version__
from termite.engine.decide.command_memory import CommandMemory
from termite.engine.decide.environment import Environment
from termite.engine.decide.loaded_plugins import Plugins
from termite.engine.decide.local_or_remote import KnownPlaces, Tie, decide, tie_by_memory
from termite.engine.decide.logic.attribute_programs import depends_on_owners
from termite.engine.decide.logic.later_code import find_later_code
from termite.engine.decide.logic.questions import reason_of_program
from termite.engine.decide.logic.rules import RuleBook
from termite.engine.decide.logic.switches import is_local_forbidden
from termite.engine.decide.outside_writes import OutsideWrites
from termite.engine.decide.private_places import PrivatePlaces
from termite.engine.decide.refused_commands import Refusal, RefusalMemory
from termite.engine.decide.rule_file import RuleFile
from termite.engine.decide.short_commands import ShortCommands
from termite.engine.errors import Reason, Retryable
from termite.engine.fleet.logic.pool_config import PoolConfig
from termite.engine.fleet.pool import Pool
from termite.engine.history.logic.recorded_text import recorded_line
from termite.engine.host.log_tail import LogTail
from termite.engine.host.machine import read_facts, user_name
from termite.engine.launch.local_runs import LocalRuns, LocalSlots, parent_of
from termite.engine.launch.output import HeldOutputs
from termite.engine.launch.vantage import difference, own_vantage
from termite.engine.loop.fd_watcher import FdWatcher
from termite.engine.loop.long_work import compute
from termite.engine.master.job import Job
from termite.engine.master.mirror_requests import MirrorRequests
from termite.engine.master.recording.authors import Authors
from termite.engine.master.recording.fleet_view import FleetView, view_fleet
from termite.engine.master.recording.job_records import RecordSettings
from termite.engine.master.recording.recorder import Recorder
from termite.engine.master.recording.recorder_config import RecorderConfig
from termite.engine.master.remote_runs.settled_check import SettledCheck
from termite.engine.master.remote_runs.tool_places import ToolPlaces, UnseenPrograms
from termite.engine.master.reuse.result_cache import ResultCache, open_cache
from termite.engine.master.reuse.run_observer import RunObserver
from termite.engine.master.user_notices.notices import Notices
from termite.engine.master.worker_shell.job_surroundings import JobSurroundings, Surroundings
from termite.engine.model import CacheMode, Change, Command, How, MachineFacts, TraceMode, Verdict
from termite.engine.paths import is_within, tree_path
from termite.engine.recall.fact_reader import FactReader
from termite.engine.recall.shared_store.shared_settings import SharedSettings
from termite.engine.status.control_requests import Vantage
from termite.engine.status.report import Counters
from termite.engine.tree.master_tree import MasterTree
from termite.engine.wire.owner import OWNER_BYTES
from termite.engine.wire.protocol.messages import Run

MAX_GROUPS = 256  # of a user; a job may not give its files to more


@dataclass(frozen=True, slots=True)
class MasterConfig:
    """The configuration of a master. Its writable root is the directory of `socket`.

    * `slots` is the number of slots to lease in all; 0 means as many as the workers have.
    * `short_s`: commands that are known to take less run locally while a core is idle. None means
      that the limit follows the measured dispatch overhead, 0 that no command is short.
    * `short_store` and `hash_cache` are files for the next master; None means no such file.
    * `idle_exit_s`: the master ends after this time without a job or a build; 0 means never.
    * `env_exclude` are shell patterns: variables with such names are not sent to workers.
    * `owner` is a key that no other user knows (wire/owner.py).
    * `shares_temporary`: jobs see /tmp and /var/tmp, and may leave new files there.
    * `own_path` is the path of the tree outside of the private mount namespace of this process, in
      which the tree stands at another path. None means that there is no such namespace. `outside`
      is a descriptor of the tree there, or -1.
    * `alias` is a symlink to the writable root, outside of it. None means that there is none.
    * `log_tail` has the last records of the master's log.
    * `exports`, `excludes` and `hidden` are paths below the root directory.
    * `records` is the directory for the records of jobs; None means that they are only in the live
      stream. Without `keeps_output`, they have no output of jobs.
    * `trace` says how the jobs are traced that can be.
    * `cache` says which use is made of the results below `results`, that are on our own disk.
      `shared_store` is where others have theirs; None means that there is none.
    """

    socket: Path
    coordinator: tuple[str, int]
    secret: bytes
    plugins: Plugins
    slots: int = 0
    local_slots: int = 1
    short_s: float | None = None
    short_store: Path | None = None
    keepalive_s: float = 60.0
    idle_exit_s: float = 0.0
    exports: tuple[bytes, ...] = ()
    excludes: tuple[bytes, ...] = ()
    hidden: tuple[bytes, ...] = ()
    hash_cache: Path | None = None
    env_exclude: tuple[str, ...] = ()
    owner: bytes = field(default_factory=lambda: os.urandom(OWNER_BYTES))
    shares_temporary: bool = True
    own_path: Path | None = None
    outside: int = -1
    alias: Path | None = None
    records: Path | None = None
    keeps_output: bool = True
    trace: TraceMode = TraceMode.OFF
    cache: CacheMode = CacheMode.OFF
    results: Path | None = None
    shared_store: SharedSettings | None = None
    log_tail: LogTail = field(default_factory=LogTail)


class Master:
    """The state that jobs share. `serve_master` (master_daemon.py) makes and ends it."""

    def __init__(self, config: MasterConfig, tree: MasterTree) -> None:
        self.config = config
        self.tree = tree
        self.root = str(config.socket.parent)
        self.writable_root = tree_path(config.socket.parent)
        self.vantage = own_vantage()
        self.machine = read_facts()
        self.plugins = config.plugins
        self.book = RuleBook(config.plugins.rules())
        self.rule_file = RuleFile(config.socket.parent, self.book)
        self.started_s = time.time()
        self.counters = Counters()
        self.authors = Authors()
        self.notices = Notices()
        self.jobs: dict[int, Job] = {}
        self.surroundings = JobSurroundings()
        self.fd_watcher = FdWatcher()
        self.local_runs = LocalRuns(LocalSlots(config.local_slots, parent_of), self.fd_watcher)
        self.held_outputs = HeldOutputs()
        self.settled_check = SettledCheck(tree.recheck_settled)
        self.memory = CommandMemory(config.short_store)
        self.short = ShortCommands(config.short_s, self.memory)
        self.private = PrivatePlaces(str(config.socket.parent), tree.find_private)
        self.refused = RefusalMemory(self.memory)
        self.outside = OutsideWrites(str(config.socket.parent), config.plugins)
        self.tool_places = ToolPlaces(tree, config.plugins)
        with suppress(Retryable):  # the first job looks again
            self.tool_places.show_for(Environment(os.environ))
        if config.alias is not None:
            tree.show_tools((), (), [bytes(config.alias)])
        self.fact_reader = FactReader(tree)
        self.cache = _open_cache(config, self.writable_root)
        self.users_of_unseen = UnseenPrograms()
        self.pool = Pool(_pool_config(config, tree, self.machine), tree.drain, self._requests().answer)
        self.recorder = Recorder(_recorder_config(config), self._view_fleet)
        self.is_without_worker = False
        self._named_foreign: set[tuple[str, str]] = set()
        self._is_root = os.geteuid() == 0
        self.builds = 0  # those that run now: they get a summary
        self.last_busy_s = trio.current_time()

    @property
    def is_busy(self) -> bool:
        """True while a job or a build runs."""
        return bool(self.jobs or self.local_runs.running or self.builds)

    @property
    def oldest_number(self) -> int:
        """The number of the journal below which neither a job nor a mirror needs changesets."""
        cursor = self.pool.oldest_cursor()
        numbers = [job.number for job in self.jobs.values() if job.number is not None]
        return min([*numbers, self.tree.number if cursor is None else cursor])

    def counters_of(self, job: Job) -> tuple[Counters, ...]:
        """Return the counters in which what happens to a job counts: ours, and its build's."""
        build = job.notes.build
        return (self.counters,) if build is None else (self.counters, build.counters)

    def begin_build(self) -> None:
        """Forget what concerned the build before: its notices, and its places outside the tree.

        Look for hooks that the user has linked meanwhile.
        """
        with suppress(Retryable):  # the next build looks again
            self.tree.notes.code_links.look()
        self.notices.clear()
        self.outside.begin_build()
        self.private.begin_build()
        if not self.jobs:
            self.tree.notes.fresh.begin_build(time.time_ns())

    def _requests(self) -> MirrorRequests:
        return MirrorRequests(self.tree, self.jobs, self.outside.is_droppable, self.machine)

    def _view_fleet(self) -> FleetView:
        since_epoch_s = time.time() - trio.current_time()
        return view_fleet(self.pool, since_epoch_s, is_checking=self.settled_check.is_awaited)

    def decide(self, how: How, command: Command) -> Verdict:
        """Return the verdict on a command, also by what was met when it ran before."""
        verdict = decide(command, self.book, self.config.env_exclude, self.root, how)
        if verdict.local:
            return verdict
        if verdict.rule is None and self.depends_on_owners(command):
            return Verdict(local=True, tie=Reason.OWNERS_SHOWN)
        if is_local_forbidden(command.env):
            return verdict
        if program := self.users_of_unseen.program_of(command):
            if reason := reason_of_program(program):
                return Verdict(local=True, tie=reason)
            return Verdict(local=True, tie=Reason.UNSEEN_PROGRAM, program=program)
        return verdict

    def find_tie(
        self, command: Command, verdict: Verdict, env: Mapping[str, str], find_refusal: Callable[[], Refusal | None]
    ) -> Tie | None:
        """Return as `tie_by_memory` does, by the places that this master knows."""
        self.private.see_fifos(self.tree.fifos)
        return tie_by_memory(command, verdict, env, find_refusal, KnownPlaces(self.outside, self.private))

    def depends_on_owners(self, command: Command) -> bool:
        """Return whether a command meets files of other users, and depends on that.

        The answer may change while the command runs, because the tree is read on demand.
        """
        return depends_on_owners(command.text, self.root, is_mixed=self.tree.notes.is_mixed, is_root=self._is_root)

    async def find_later_code(self, changes: Sequence[Change]) -> list[bytes]:
        """Return the paths by which a result would make code run later.

        A long result takes a thread. Raise Retryable if a look at a symlink of the user fails.
        """
        root, may_have, links = self.writable_root, self.tree.may_have, self.tree.notes.code_links.ways()
        return await compute(len(changes), lambda: find_later_code(changes, root, may_have, links))

    def remember(self, job: Job) -> None:
        """Remember the surroundings of a job, which was parsed, for a shell like it."""
        if (command := job.command) is not None:
            request, rule = job.request, job.verdict.rule if job.verdict else None
            surroundings = Surroundings(command.cwd, command.env, request.umask, request.inherited, rule)
            self.surroundings.add(job.id, surroundings)

    def other_name(self, path: str) -> str:
        """Return a name of a path of the tree that does not begin with the tree's own path.

        Return the path itself if it is not in the tree, or if there is no other name.
        """
        if self.config.alias is None or not is_within(os.fsencode(path.strip("/")), self.writable_root):
            return path
        return os.path.normpath(f"{self.config.alias}/{os.path.relpath(path, self.root)}")

    def observer_of(self, message: Run) -> RunObserver:
        """Return the observer of a run, right after its dispatch."""
        return RunObserver(self.tree, self.fact_reader, message, self.writable_root)

    def pop_foreign(self) -> list[tuple[str, str]]:
        """Return the names and architectures of workers that get no commands, each of them once."""
        found = [worker for worker in self.pool.fleet.foreign.items() if worker not in self._named_foreign]
        self._named_foreign.update(found)
        return found

    def is_misplaced(self, cwd: str) -> bool:
        """Return whether a process names the tree by its own path, though it is built at another.

        Its commands must not run anywhere: their results would have the wrong path in them.
        """
        own = self.config.own_path
        return own is not None and is_within(os.fsencode(cwd), bytes(own))

    def find_difference(self, vantage: Vantage, cwd: str) -> Reason | None:
        """Return in what another process's vantage differs from the master's, or None."""
        found = difference(self.vantage, vantage, cwd)
        if found is Reason.OTHER_HOST:  # this machine may have another name than at the start
            self.vantage = own_vantage()
            found = difference(self.vantage, vantage, cwd)
        return found


def _open_cache(config: MasterConfig, root: bytes) -> ResultCache | None:
    tools = config.plugins.known_tools()
    return open_cache(config.cache, config.results, config.env_exclude, root, tools, config.shared_store)


def _recorder_config(config: MasterConfig) -> RecorderConfig:
    root = config.socket.parent
    settings = RecordSettings(tree_path(root), config.env_exclude, config.keeps_output)
    shown = recorded_line(str(config.own_path or root))
    return RecorderConfig(config.records, shown, settings, __version__, config.local_slots)


def _pool_config(config: MasterConfig, tree: MasterTree, machine: MachineFacts) -> PoolConfig:
    host = os.uname().nodename
    return PoolConfig(
        coordinator=config.coordinator,
        secret=config.secret,
        master=f"{host}:{config.own_path or config.socket.parent}",
        slots=config.slots,
        uid=os.getuid(),
        gid=os.getgid(),
        writable_root=tree_path(config.socket.parent),
        owner=config.owner,
        temporary=tree.temporary,
        groups=tuple(group for group in os.getgroups() if group != os.getgid())[:MAX_GROUPS],
        keepalive_s=config.keepalive_s,
        user=f"{user_name()}@{host}",
        machine=machine,
    )
