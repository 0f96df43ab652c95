"""termite-coordinator and termite-worker: from arguments to a running daemon, and from a signal to its end."""

import argparse
import gc
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

import trio

from termite.cli.flags import EXIT_FAILED, report
from termite.cli.logs import set_up_logging
from termite.cli.parser import Parser
from termite.cli.places import CACHE, own_directory
from termite.engine.errors import UserError
from termite.engine.fleet.coordinator import DEFAULT_PORT as COORDINATOR_PORT
from termite.engine.fleet.coordinator import CoordinatorConfig, serve_coordinator
from termite.engine.host import preflight
from termite.engine.host.native_programs import native_program
from termite.engine.wire.identity import read_secret
from termite.engine.worker.mirror_homes import DEFAULT_USER_BASE, USERS, check_users
from termite.engine.worker.worker_daemon import DEFAULT_PORT as WORKER_PORT
from termite.engine.worker.worker_daemon import WorkerConfig, serve_worker

Serve = Callable[[trio.TaskStatus[str]], Awaitable[None]]


def run_daemon(program: str, serve: Serve, announce: str) -> int:
    """Run until SIGINT or SIGTERM; the exit code. `announce` is the line on stdout when it serves, with {address}."""

    async def main() -> None:
        # A hang-up that nohup has set to be ignored stays ignored.
        hang_up = [signal.SIGHUP] if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL else []
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, *hang_up) as signals:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_cancel_on_signal, signals, nursery.cancel_scope)
                address = await nursery.start(_serve_to_the_end, serve, nursery.cancel_scope)
                print(f"{program}: {announce.format(address=address)}", flush=True)

    # A tree of 100,000 names is no garbage: looking through it again and again costs more than what a cycle leaves.
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    # Where a caller's umask is 0777 we could not enter our own directories. Jobs and results have modes of their own.
    os.umask(0o022)
    try:
        trio.run(main)
    except* UserError as group:
        for error in _leaves(group):
            report(program, error)
        return_code = EXIT_FAILED
    else:
        return_code = 0
    return return_code


async def _serve_to_the_end(serve: Serve, daemon: trio.CancelScope, task_status: trio.TaskStatus[str]) -> None:
    await serve(task_status)
    daemon.cancel()  # it was told to end by a client, or found nothing more to do


async def _cancel_on_signal(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
    async for _ in signals:
        scope.cancel()


def _leaves(group: BaseExceptionGroup[UserError]) -> list[UserError]:
    leaves: list[UserError] = []
    for error in group.exceptions:
        leaves += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return leaves


# -- termite-coordinator ----------------------------------------------------------------------------------------------


def coordinator(argv: Sequence[str] | None = None) -> int:
    """The command termite-coordinator."""
    program = "termite-coordinator"
    try:
        flags = _coordinator_parser(program).parse_flags(sys.argv[1:] if argv is None else argv)
        set_up_logging(flags.log_level, flags.logfile)
        config = CoordinatorConfig(read_secret(flags.secret), flags.listen, flags.port)
    except UserError as error:
        report(program, error)
        return EXIT_FAILED

    async def serve(task_status: trio.TaskStatus[str]) -> None:
        await serve_coordinator(config, task_status)

    return run_daemon(program, serve, "listens on {address}")


def _coordinator_parser(program: str) -> Parser:
    parser = Parser(
        program,
        "Tell masters which workers there are. One for all machines; it may be restarted at any time.",
        "termite-coordinator -secret secret.txt",
    )
    parser.add_argument("--port", type=_port, default=COORDINATOR_PORT, help="TCP port; 0: any free one")
    _add_common_flags(parser)
    return parser


# -- termite-worker ---------------------------------------------------------------------------------------------------


def worker(argv: Sequence[str] | None = None) -> int:
    """The command termite-worker."""
    program = "termite-worker"
    try:
        flags = worker_parser(program).parse_flags(sys.argv[1:] if argv is None else argv)
        set_up_logging(flags.log_level, flags.logfile)
        config = worker_config(flags, read_secret(flags.secret))
    except UserError as error:
        report(program, error)
        return EXIT_FAILED

    async def serve(task_status: trio.TaskStatus[str]) -> None:
        await serve_worker(config, task_status)

    where = f"coordinator {config.coordinator}" if config.coordinator else "no coordinator"
    return run_daemon(program, serve, f"listens on {{address}}, {config.slots} slots, {where}")


def worker_config(flags: argparse.Namespace, secret: bytes) -> WorkerConfig:
    """What the flags say, after the checks that this machine can run jobs at all."""
    root = os.geteuid() == 0
    users = range(flags.user_base, flags.user_base + USERS) if root else None
    sandbox = native_program("termite-sandbox")
    machine = preflight.read_machine()
    preflight.check_machine(machine)
    preflight.check_fuse(root=root)
    if users is not None:
        check_users(users)
        for path, what in ((Path(sys.executable), "Python"), (sandbox, "termite-sandbox"), (_PACKAGE, "termite")):
            preflight.check_readable_by_others(path, what)
    preflight.check_sandbox(sandbox, users[0] if users else None)
    return WorkerConfig(
        secret=secret,
        slots=flags.jobs,
        coordinator=flags.coordinator,
        cache=flags.cachedir or default_cache(),
        tmpdir=flags.tmpdir,
        sandbox=sandbox,
        tmpfs=_wants_tmpfs(flags.scratch, machine.kernel),
        users=users,
        name=flags.name,
        listen=flags.listen,
        port=flags.port,
        advertise=flags.advertise,
        log_level=flags.log_level,
    )


_PACKAGE = Path(__file__).parent.parent


def default_cache() -> Path:
    """Where a worker keeps files between jobs and between its runs."""
    return Path("/var/cache/termite") if os.geteuid() == 0 else own_directory(CACHE)


def default_tmpdir() -> Path:
    """Where a worker makes its scratch directory: /var/tmp, which is no tmpfs, so that big outputs fit."""
    named = Path(os.environ.get("TMPDIR", ""))
    return named if named.is_absolute() and named.is_dir() else Path("/var/tmp")


def _wants_tmpfs(scratch: str, kernel: str) -> bool:
    possible = preflight.has_tmpfs_upper(kernel)
    if scratch == "tmpfs" and not possible:
        raise UserError(f"Linux {kernel} cannot keep scratch files in a tmpfs (6.6 can)", hint="use -scratch disk")
    return possible and scratch != "disk"


def worker_parser(program: str) -> Parser:
    parser = Parser(
        program,
        "Run other machines' jobs here, each in a sandbox that shows the master's files. "
        "As root, jobs run as users without privilege (see -user-base); otherwise as you.",
        "termite-worker -jobs 8 -secret secret.txt -coordinator buildhost",
    )
    cores = len(os.sched_getaffinity(0))
    add = parser.add_argument
    add("--jobs", type=_positive, default=2 * cores, metavar="N", help="jobs at once, of all masters together")
    coordinator = f"localhost:{COORDINATOR_PORT}"
    add("--coordinator", default=coordinator, metavar="HOST:PORT", help="where to register; empty: nowhere")
    add("--port", type=_port, default=WORKER_PORT, help="TCP port; 0: any free one")
    add(
        "--advertise",
        default="",
        metavar="HOST[:PORT]",
        help="address for masters (default: as the coordinator sees it)",
    )
    add("--name", default="", help="name in status and logs (default: host name and port)")
    add(
        "--cachedir",
        type=Path,
        metavar="DIR",
        help="files kept between jobs (default: /var/cache/termite; ~/.cache/termite of an ordinary user)",
    )
    add("--tmpdir", type=Path, default=default_tmpdir(), metavar="DIR", help="what running jobs write")
    add(
        "--scratch",
        choices=("auto", "tmpfs", "disk"),
        default="auto",
        help="what running jobs write goes to memory or to -tmpdir; auto: memory where the kernel can (Linux 6.6)",
    )
    add(
        "--user-base",
        type=_positive,
        default=DEFAULT_USER_BASE,
        metavar="UID",
        help=f"first of the {USERS} user ids that jobs of a root worker run as",
    )
    _add_common_flags(parser)
    return parser


# -- both -------------------------------------------------------------------------------------------------------------


def _add_common_flags(parser: Parser) -> None:
    add = parser.add_argument
    add(
        "--secret",
        type=Path,
        default=Path("secret.txt"),
        metavar="FILE",
        help="the secret all machines share, mode 0600",
    )
    add("--listen", default="", metavar="ADDRESS", help="address of this machine to listen on (default: all)")
    add("--logfile", type=Path, metavar="FILE", help="append the log to this file (default: stderr)")
    add("--log-level", choices=("debug", "info", "warning"), default="info", help="how much to log")


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port < 65536:
        raise ValueError(text)
    return port


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


_port.__name__ = "port"
_positive.__name__ = "number"
