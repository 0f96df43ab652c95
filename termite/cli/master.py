"""termite-master: the daemon of one tree, joined to a cluster, or with a cluster of its own inside (`--embedded`).

An embedded one is started by a front end or by `termite-ctl start` and detached from it; its last word to the starter
goes through the pipe `--ready-fd`: `ok`, or the line of an error.
"""

import argparse
import math
import os
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import trio

from termite.cli.claims import wait_for_claims
from termite.cli.daemons import run_daemon, worker_config, worker_parser
from termite.cli.flags import EXIT_FAILED, report
from termite.cli.logs import set_up_logging
from termite.cli.parser import Parser
from termite.cli.places import CACHE, own_directory, tree_name, working_directory
from termite.engine.decide.loaded_plugins import load_plugins
from termite.engine.errors import UserError
from termite.engine.fleet.coordinator import COORDINATOR_PORT, CoordinatorConfig, serve_coordinator
from termite.engine.host.native_programs import native_program
from termite.engine.master.master_daemon import serve_master
from termite.engine.master.shared import SOCKET, MasterConfig
from termite.engine.wire.addresses import split_address
from termite.engine.wire.identity import read_secret
from termite.engine.worker.worker_daemon import WorkerConfig, serve_worker

PROGRAM = "termite-master"
BUILT_IN_PLUGINS = tuple(f"termite.plugins.{name}" for name in ("make", "ninja", "cmake", "cargo", "go", "meson"))
IDLE_EXIT_S = 600.0
SECRET_BYTES = 32
LOOPBACK = "127.0.0.1"


def main(argv: Sequence[str] | None = None, claim: socket.socket | None = None) -> int:
    """The command termite-master. `claim` is closed when it serves."""
    ready_fd = -1
    try:
        flags = _parser().parse_flags(sys.argv[1:] if argv is None else argv)
        ready_fd = flags.ready_fd
        set_up_logging(flags.log_level, flags.logfile)
        if flags.embedded:
            if claim is not None:
                claim.close()  # else it would wait for itself
            return _run_embedded(flags)
        return _run(flags, claim)
    except UserError as error:
        _tell_starter(ready_fd, f"{error.message}\n{error.hint}")
        report(PROGRAM, error)
    return EXIT_FAILED


def _run(flags: argparse.Namespace, claim: socket.socket | None) -> int:
    host, port = split_address(flags.coordinator, COORDINATOR_PORT)
    if not host:
        raise UserError("-coordinator names no host", hint=f"write HOST:PORT, such as localhost:{COORDINATOR_PORT}")
    config = _master_config(flags, read_secret(flags.secret), (host, port))

    async def serve(task_status: trio.TaskStatus[str]) -> None:
        async with trio.open_nursery() as nursery:
            address = await nursery.start(serve_master, config)
            if claim is not None:
                claim.close()
            task_status.started(address)

    return run_daemon(PROGRAM, serve, f"serves {config.socket.parent}, coordinator {flags.coordinator}")


def _run_embedded(flags: argparse.Namespace) -> int:
    # The secret is made here and never leaves this process; its coordinator and worker listen on the loopback only.
    secret = os.urandom(SECRET_BYTES)
    worker = _embedded_worker(flags, secret)
    # Who has started a master by hand wants that one: then ours will find it there.
    wait_for_claims(Path(os.path.abspath(flags.socket)).parent)

    async def serve(task_status: trio.TaskStatus[str]) -> None:
        try:
            async with trio.open_nursery() as nursery:
                address = await nursery.start(serve_coordinator, CoordinatorConfig(secret, LOOPBACK, 0))
                await nursery.start(serve_worker, worker(address))  # that it cannot must be said before `ok`
                config = _master_config(flags, secret, split_address(address, 0))
                await nursery.start(_serve_until_done, config, nursery.cancel_scope)
                _tell_starter(flags.ready_fd, "ok")
                task_status.started(str(config.socket))
        except* UserError as group:
            error = _first(group)
            _tell_starter(flags.ready_fd, f"{error.message}\n{error.hint}")
            raise error from None

    return run_daemon(PROGRAM, serve, "serves {address}, with a worker of its own")


async def _serve_until_done(
    config: MasterConfig, scope: trio.CancelScope, task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED
) -> None:
    """When the master ends, by `termite-ctl shutdown` or idleness, its coordinator and worker end too."""
    await serve_master(config, task_status)
    scope.cancel()


def _embedded_worker(flags: argparse.Namespace, secret: bytes) -> Callable[[str], WorkerConfig]:
    """Checks that this machine can run jobs; what then depends on is the coordinator's address only."""
    cores = len(os.sched_getaffinity(0))
    # One more than cores: while a job waits for a file, another one computes. The compilers' machine is this one.
    jobs = flags.jobs or cores + 1
    words = ["--jobs", str(jobs), "--listen", LOOPBACK, "--port", "0", "--name", "here"]
    words += ["--log-level", flags.log_level]

    def at(address: str) -> WorkerConfig:
        return worker_config(worker_parser(PROGRAM).parse_flags([*words, "--coordinator", address]), secret)

    at("")
    return at


def _master_config(flags: argparse.Namespace, secret: bytes, coordinator: tuple[str, int]) -> MasterConfig:
    named = Path(os.path.normpath(working_directory() / flags.socket))
    # The tree is named by what it is, not by symlinks that lead to it: the mirror shows it at that place.
    path = Path(os.path.realpath(named.parent)) / named.name
    hidden = [path for path in (flags.logfile, flags.secret) if path]
    plugins = load_plugins(BUILT_IN_PLUGINS)
    # A job that says `termite` itself, as a rule of a manifest may, must find it; it then just runs the rest.
    exports = (*flags.export, native_program("termite"), *virtual_environments(os.environ))
    return MasterConfig(
        socket=path,
        coordinator=coordinator,
        secret=secret,
        plugins=plugins,
        slots=0 if flags.embedded else flags.jobs,
        local_slots=len(os.sched_getaffinity(0)),
        short_s=flags.short,
        short_store=own_directory(CACHE) / f"short-{tree_name(path.parent)}",
        keepalive_s=flags.keepalive,
        idle_exit_s=flags.idle_exit,
        exports=(*(_tree_path(path) for path in exports), *launcher_links(os.environ)),
        excludes=tuple(_tree_path(path) for path in flags.exclude),
        hidden=tuple(_tree_path(path) for path in hidden),
        watched=tuple(_tree_path(Path(path)) for path in plugins.exports(os.environ)),
        hash_cache=own_directory(CACHE) / "hashes",
    )


def virtual_environments(env: Mapping[str, str]) -> set[Path]:
    """Those of Python in PATH: a tool from there, such as pip's CMake, needs all of its own.

    What cannot be looked at (another user's, after su) is none.
    """
    places = {Path(directory).parent for directory in env.get("PATH", "").split(":") if directory.startswith("/")}
    return {place for place in places if os.path.isfile(place / "pyvenv.cfg")}


def launcher_links(env: Mapping[str, str]) -> list[bytes]:
    """The links to the launcher in PATH, as paths of the tree: they may lie where jobs see nothing else."""
    launcher = os.path.realpath(native_program("termite"))
    links = {
        Path(os.path.realpath(directory)) / "termite"
        for directory in env.get("PATH", "").split(":")
        if directory.startswith("/")
    }
    return [os.fsencode(link).strip(b"/") for link in sorted(links) if os.path.realpath(link) == launcher]


def _tree_path(path: Path) -> bytes:
    return os.fsencode(os.path.realpath(path)).strip(b"/")


def _tell_starter(ready_fd: int, line: str) -> None:
    if ready_fd >= 0:
        try:
            os.write(ready_fd, os.fsencode(line))
            os.close(ready_fd)
        except OSError:
            pass  # told already, or the starter did not wait


def _first(group: BaseExceptionGroup[UserError]) -> UserError:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, UserError)
    return error


def _parser() -> Parser:
    parser = Parser(
        PROGRAM,
        "Run in the top directory of a project: sends the commands of its builds to workers. Everything below the "
        "directory of the socket can be written by them.",
        "cd project; termite-master -jobs 16 -secret ~/secret.txt -coordinator buildhost & termite-make -j16",
    )
    add = parser.add_argument
    add("--jobs", type=_count, default=0, metavar="N", help="slots to lease in all; 0: as many as there are")
    add("--coordinator", default=f"localhost:{COORDINATOR_PORT}", metavar="HOST:PORT", help="who knows the workers")
    add("--secret", type=Path, default=Path("secret.txt"), metavar="FILE", help="what all machines share, mode 0600")
    add("--socket", type=Path, default=Path(SOCKET), metavar="FILE", help="its directory is the top of the tree")
    add(
        "--export", type=Path, action="append", default=[], metavar="DIR", help="jobs may read it though others may not"
    )
    add("--exclude", type=Path, action="append", default=[], metavar="PATH", help="no remote job ever sees it")
    what = "commands known to take less run here while a core is free; auto: than 50 times their way; 0: none do"
    add("--short", type=_short, default=None, metavar="MS", help=what)
    add("--keepalive", type=_seconds, default=60.0, metavar="S", help="idle leases go back after so long")
    add("--idle-exit", type=_seconds, default=0.0, metavar="S", help="end after so long without a build; 0: never")
    add("--embedded", action="store_true", help="with a coordinator and a worker for this machine inside")
    add("--ready-fd", type=int, default=-1, help=argparse.SUPPRESS)
    add("--logfile", type=Path, metavar="FILE", help="append the log to this file (default: stderr)")
    add("--log-level", choices=("debug", "info", "warning"), default="info", help="how much to log")
    return parser


def _count(text: str) -> int:
    number = int(text)
    if number < 0:
        raise ValueError(text)
    return number


def _seconds(text: str) -> float:
    number = float(text)
    if not 0 <= number < math.inf:
        raise ValueError(text)
    return number


def _short(text: str) -> float | None:
    return None if text == "auto" else _seconds(text) / 1000


_short.__name__ = "number of milliseconds"
_count.__name__ = "number"
_seconds.__name__ = "number"


if __name__ == "__main__":
    raise SystemExit(main())
