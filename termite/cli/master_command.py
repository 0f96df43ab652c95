"""The command termite-master: the daemon of one tree, with the workers of a cluster or its own.

With `--embedded` the process also holds a coordinator and a worker. A front end or
`termite-ctl start` starts such a master, detached. The master writes one `StartReport` to the pipe
`--ready-fd`.
"""

import argparse
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from errno import EBADF, EPIPE
from pathlib import Path

import trio

from termite.cli.amounts import parse_count, parse_seconds
from termite.cli.claims import wait_for_claims
from termite.cli.client import StartReport
from termite.cli.daemons import run_daemon, worker_config, worker_parser
from termite.cli.flags import report, run_reporting
from termite.cli.leftovers.footprints import master_places, worker_places
from termite.cli.logs.log_settings import add_log_flags, start_log
from termite.cli.moved_trees.marks import write_mark
from termite.cli.moved_trees.moves import MovedTree, enter_as_master
from termite.cli.parser import Parser
from termite.cli.places import CACHE, own_directory, records_directory, tree_name, working_directory
from termite.engine.decide.loaded_plugins import load_plugins
from termite.engine.decide.logic.switches import check_variables
from termite.engine.errors import ExitCode, UserError, errors_in
from termite.engine.fleet.coordinator import COORDINATOR_PORT, CoordinatorConfig, serve_coordinator
from termite.engine.host.log_tail import LogTail
from termite.engine.host.machine import usable_cores
from termite.engine.host.native_programs import native_program
from termite.engine.master.master_daemon import serve_master
from termite.engine.master.shared import MasterConfig
from termite.engine.model import CacheMode, TraceMode
from termite.engine.paths import MASTER_SOCKET
from termite.engine.recall.shared_store.shared_settings import (
    SharedSettings,
    check_extra,
    files_of_settings,
    read_shared_settings,
)
from termite.engine.wire.addresses import INPROC, split_address
from termite.engine.wire.identity import read_secret
from termite.engine.wire.owner import read_owner
from termite.engine.worker.worker_daemon import WorkerConfig, serve_worker

PROGRAM = "termite-master"
_PLUGINS = ("make", "ninja", "cmake", "cargo", "go", "meson", "caches", "known", "machine", "runners", "tool_managers")
BUILT_IN_PLUGINS = tuple(f"termite.plugins.{name}" for name in _PLUGINS)
SECRET_BYTES = 32


class StarterPipe:
    """The pipe to the process that has started this master (-1: nobody waits for a report).

    The pipe takes one report, and is closed. A master that served may still end with an error, and
    its descriptor's number may by then belong to another file.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def report(self, start: StartReport) -> None:
        """Send the report, unless one was sent. The starter may have given up waiting for it."""
        fd, self._fd = self._fd, -1
        if fd < 0:
            return
        try:
            with open(fd, "wb", buffering=0) as pipe:
                pipe.write(start.pack())
        except OSError as error:
            if error.errno not in (EPIPE, EBADF):  # EBADF: `--ready-fd` is no descriptor
                raise


def main(argv: Sequence[str] | None = None, claim: socket.socket | None = None) -> int:
    """Run the command termite-master and return its exit code.

    `claim` is closed as soon as the master serves. None means that there is no claim.
    """
    starter = StarterPipe(-1)
    try:
        flags = master_parser().parse_flags(sys.argv[1:] if argv is None else argv)
        starter = StarterPipe(flags.ready_fd)
        check_variables(os.environ)
        if flags.embedded:
            if claim is not None:
                claim.close()  # otherwise it would wait for itself
            # A master that the user started by hand takes precedence: ours cannot take the socket.
            wait_for_claims(Path(os.path.abspath(flags.socket)).parent)
        tree = enter_as_master(flags, socket_path(flags))
        tail = start_log(flags)
        return _run_embedded(flags, tree, tail, starter) if flags.embedded else _run(flags, tree, claim, tail)
    except UserError as error:
        starter.report(StartReport(error.message, error.hint, error.reason.value))
        report(PROGRAM, error)
    return ExitCode.FAILED


def _run(flags: argparse.Namespace, tree: MovedTree | None, claim: socket.socket | None, tail: LogTail) -> int:
    host, port = split_address(flags.coordinator, COORDINATOR_PORT)
    if not host:
        raise UserError(
            "-coordinator names no host", hint=f"write HOST or HOST:PORT, such as localhost:{COORDINATOR_PORT}"
        )
    config = _master_config(flags, tree, read_secret(flags.secret), (host, port), tail)

    async def serve(task_status: trio.TaskStatus[str]) -> None:
        async with trio.open_nursery() as nursery:
            address = await nursery.start(serve_master, config)
            if claim is not None:
                claim.close()
            _mark_tree(config)
            task_status.started(address)

    announce = f"serves {_shown_tree(config)}, coordinator {flags.coordinator}"
    return run_daemon(PROGRAM, serve, announce, _places(config.socket, tree))


def _run_embedded(flags: argparse.Namespace, tree: MovedTree | None, tail: LogTail, starter: StarterPipe) -> int:
    # The secret is made here and never leaves this process, and nor do connections to the
    # coordinator and to the worker begin outside of it.
    secret = os.urandom(SECRET_BYTES)
    worker = _embedded_worker(flags, secret, f"{INPROC}worker", tail)

    async def serve(task_status: trio.TaskStatus[str]) -> None:
        try:
            async with trio.open_nursery() as nursery:
                address = await nursery.start(serve_coordinator, CoordinatorConfig(secret, f"{INPROC}coordinator", 0))
                # Its errors must come before the report.
                await nursery.start(serve_worker, replace(worker, coordinator=address))
                config = _master_config(flags, tree, secret, split_address(address, 0), tail)
                await nursery.start(_serve_until_done, config, nursery.cancel_scope)
                _mark_tree(config)
                starter.report(StartReport())
                task_status.started(str(config.socket))
        except* UserError as group:
            error = next(errors_in(group))
            starter.report(StartReport(error.message, error.hint, error.reason.value))
            raise error from None

    places = _places(socket_path(flags), tree) | worker_places(worker.cache, worker.tmpdir)
    return run_daemon(PROGRAM, serve, "serves {address}, with a worker of its own", places)


async def _serve_until_done(
    config: MasterConfig, scope: trio.CancelScope, task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED
) -> None:
    """Serve until the master ends, by `termite-ctl shutdown` or idleness; then end the rest."""
    await serve_master(config, task_status)
    scope.cancel()


def _embedded_worker(flags: argparse.Namespace, secret: bytes, listen: str, tail: LogTail) -> WorkerConfig:
    """Return the worker's configuration, but for the coordinator's address.

    Raise UserError if this machine cannot run jobs.
    """
    cores = usable_cores()
    # The default is one more than there are cores: while a job waits for a file, another one
    # computes. The twice as many of a separate worker would be too many for this machine.
    jobs = flags.jobs or cores + 1
    words = ["--jobs", str(jobs), "--network", "allow", "--listen", listen, "--port", "0", "--name", "here"]
    words += ["--log-level", flags.log_level, "--coordinator", ""]
    return worker_config(worker_parser(PROGRAM).parse_flags(words), secret, tail)


def socket_path(flags: argparse.Namespace) -> Path:
    """Return the path of the socket. Raise UserError if the current directory is gone.

    The mirror shows the tree at its real path, so that path is the tree's name, and not a symlink
    that leads to it.
    """
    named = Path(os.path.normpath(working_directory() / flags.socket))
    return Path(os.path.realpath(named.parent)) / named.name


def hash_store() -> Path:
    """Return the database of digests. Raise UserError if there is no place for it."""
    return own_directory(CACHE) / "hashes"


def _places(socket: Path, tree: MovedTree | None) -> dict[str, object]:
    return master_places(socket, hash_store(), tree.own if tree else None)


def _master_config(
    flags: argparse.Namespace, tree: MovedTree | None, secret: bytes, coordinator: tuple[str, int], tail: LogTail
) -> MasterConfig:
    """Return the configuration. `tree` is None if this process sees the tree at its own path."""
    path = socket_path(flags)
    own = tree.own if tree else path.parent  # files of the user are named after it
    owner = own_directory(CACHE) / "owner"
    plugins = load_plugins(BUILT_IN_PLUGINS)
    # A command inside a job may begin with `termite`, so jobs must find the launcher. There it
    # just runs the command.
    exports = (*flags.export, native_program("termite"))
    return MasterConfig(
        socket=path,
        coordinator=coordinator,
        secret=secret,
        plugins=plugins,
        slots=0 if flags.embedded else flags.jobs,
        local_slots=len(os.sched_getaffinity(0)),
        short_s=flags.short,
        short_store=own_directory(CACHE) / f"short-{tree_name(own)}",
        keepalive_s=flags.keepalive,
        idle_exit_s=flags.idle_exit,
        exports=(*(_tree_path(path) for path in exports), *launcher_links(os.environ)),
        excludes=tuple(_tree_path(path) for path in flags.exclude),
        hidden=tuple(_tree_path(path) for path in _hidden_files(flags, owner)),
        hash_cache=hash_store(),
        env_exclude=tuple(flags.env_exclude),
        owner=read_owner(owner),
        shares_temporary=flags.tmp == "shared",
        alias=own_directory(CACHE) / "trees" / tree_name(path.parent),
        own_path=tree.own if tree else None,
        outside=tree.outside if tree else -1,
        records=records_directory(own),
        keeps_output=flags.job_output == "kept",
        trace=TraceMode[flags.trace.upper()],
        cache=CacheMode(flags.cache),
        results=own_directory(CACHE) / "results",
        shared_store=_shared_settings(flags),
        log_tail=tail,
    )


def _hidden_files(flags: argparse.Namespace, owner: Path) -> list[Path]:
    """Return the files that no job may see. Raise UserError if one cannot be read."""
    hidden = [path for path in (flags.logfile, flags.secret, owner) if path]
    if flags.shared_cache_settings is not None and flags.cache == CacheMode.ON:
        hidden += files_of_settings(flags.shared_cache_settings)
    return hidden


def _mark_tree(config: MasterConfig) -> None:
    """Write down at which path the tree is built from now on, if that is not its own."""
    if config.own_path is not None:
        write_mark(config.socket.parent, str(config.socket.parent))


def _shown_tree(config: MasterConfig) -> str:
    tree = config.socket.parent
    return str(tree) if config.own_path is None else f"{config.own_path} at {tree}"


def _shared_settings(flags: argparse.Namespace) -> SharedSettings | None:
    """Return the settings of the shared store, or None if results are shared with nobody.

    Raise UserError if they are wrong, or if the extra is not installed.
    """
    if not flags.shared_cache or flags.cache != CacheMode.ON:
        return None
    check_extra()
    is_written = flags.shared_cache_mode == "write"
    return read_shared_settings(flags.shared_cache, flags.shared_cache_settings, writes=is_written)


def launcher_links(env: Mapping[str, str]) -> list[bytes]:
    """Return the links to the launcher in PATH, as paths of the tree.

    Jobs must see them, even where they see nothing else.
    """
    launcher = os.path.realpath(native_program("termite"))
    links = {
        Path(os.path.realpath(directory)) / "termite"
        for directory in env.get("PATH", "").split(":")
        if directory.startswith("/")
    }
    return [os.fsencode(link).strip(b"/") for link in sorted(links) if os.path.realpath(link) == launcher]


def _tree_path(path: Path) -> bytes:
    return os.fsencode(os.path.realpath(path)).strip(b"/")


def master_parser() -> Parser:
    """Return the parser of the flags of termite-master."""
    parser = Parser(
        PROGRAM,
        "Run this in the top directory of a project. The master sends the commands of its builds to workers. These "
        "commands may write everything below the directory of the socket.",
        "cd project; termite-master -jobs 16 -secret ~/secret.txt -coordinator buildhost & termite-make -j16",
    )
    _add_flags_of_the_tree(parser)
    _add_flags_of_the_shared_cache(parser)
    _add_flags_of_the_daemon(parser)
    return parser


def _add_flags_of_the_tree(parser: Parser) -> None:
    """Add the flags that say what jobs see, and which commands become jobs."""
    secret = "file with the secret that all machines share, mode 0600"
    export = "directory that jobs may read though other users may not; may be repeated"
    exclude = "path that jobs on workers never see; may be repeated"
    env_exclude = (
        "variables with such a name, as 'AWS_*' or '*_TOKEN', are not sent to workers, and commands that name one run "
        "here; may be repeated"
    )
    short = (
        "limit of short commands, in milliseconds: a command known to take less runs here while a core is free; "
        "0: none does; auto, the default: 50 times the dispatch overhead, at most a second"
    )
    at = (
        "path at which the tree is built, in a private mount namespace; results are then the same wherever the tree "
        "stands (default: its own path)"
    )
    tmp = (
        "shared: jobs see what all users may read in /tmp and /var/tmp, and leave new files there; private: every job "
        "has its own"
    )
    job_output = "kept: the records of jobs have the last 2 KiB that each has printed; dropped: they have none"
    trace = "exact: note each path that a command on a worker names, and how; off: do not"
    cache = (
        "on: use the results of earlier commands again, and store new ones; read: store none; off: run each command. "
        "With on, jobs are traced as by -trace exact"
    )
    add = parser.add_argument
    add("--secret", type=Path, default=Path("secret.txt"), metavar="FILE", help=secret)
    add("--socket", type=Path, default=Path(MASTER_SOCKET), metavar="FILE", help="its directory is the top of the tree")
    add("--export", type=Path, action="append", default=[], metavar="DIR", help=export)
    add("--exclude", type=Path, action="append", default=[], metavar="PATH", help=exclude)
    add("--env-exclude", action="append", default=[], metavar="PATTERN", help=env_exclude)
    add("--at", default="", metavar="PATH", help=at)
    add("--tmp", choices=("shared", "private"), default="shared", help=tmp)
    add("--job-output", choices=("kept", "dropped"), default="kept", help=job_output)
    add("--trace", choices=("off", "exact"), default="off", help=trace)
    add("--cache", choices=("on", "read", "off"), default="off", help=cache)
    add("--short", type=_parse_short, default=None, metavar="MS", help=short)


def _add_flags_of_the_shared_cache(parser: Parser) -> None:
    """Add the flags about results of other users."""
    store = (
        "grpc://HOST:PORT[/INSTANCE], or grpcs:// with TLS: with -cache on, use results of other users too, from this "
        "server of the Remote Execution API"
    )
    mode = "write: give results to the shared store as well; read: only use them"
    settings = "file of JSON with the writers whom you trust, your key, certificates and headers"
    add = parser.add_argument
    add("--shared-cache", default="", metavar="URL", help=store)
    add("--shared-cache-mode", choices=("read", "write"), default="read", help=mode)
    add("--shared-cache-settings", type=Path, default=None, metavar="FILE", help=settings)


def _add_flags_of_the_daemon(parser: Parser) -> None:
    """Add the flags about workers, the life of the master, and its log."""
    coordinator = f"localhost:{COORDINATOR_PORT}"
    idle_exit = "seconds without a build after which to end; 0: never"
    add = parser.add_argument
    add("--jobs", type=parse_count, default=0, metavar="N", help="slots to lease from workers; 0: as many as there are")
    add("--coordinator", default=coordinator, metavar="HOST[:PORT]", help="coordinator that knows the workers")
    add(
        "--keepalive",
        type=parse_seconds,
        default=60.0,
        metavar="S",
        help="seconds after which an idle lease is given back",
    )
    add("--idle-exit", type=parse_seconds, default=0.0, metavar="S", help=idle_exit)
    add("--embedded", action="store_true", help="run a coordinator and a worker for this machine in the same process")
    add("--ready-fd", type=int, default=-1, help=argparse.SUPPRESS)
    add_log_flags(parser)


def _parse_short(text: str) -> float | None:
    return None if text == "auto" else parse_seconds(text) / 1000


_parse_short.__name__ = "a number of milliseconds, or auto"


if __name__ == "__main__":
    raise SystemExit(run_reporting(PROGRAM, main))
