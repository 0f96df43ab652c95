"""The commands termite-coordinator and termite-worker: read the arguments, then run the daemon.

A daemon runs until a signal ends it.
"""

import argparse
import dataclasses
import gc
import os
import shutil
import signal
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path

import trio

from termite.cli.amounts import parse_port, parse_positive, parse_size
from termite.cli.flags import report
from termite.cli.leftovers.footprints import MOVED, footprint, start_sweep, worker_places
from termite.cli.logs.log_settings import add_log_flags, start_log
from termite.cli.page_startup.pages_address import LOCALHOST, parse_page_address
from termite.cli.page_startup.pages_process import FarmPages, keep_pages, open_farm_pages
from termite.cli.parser import Parser
from termite.cli.places import default_cache
from termite.engine.decide.logic.switches import check_variables
from termite.engine.errors import ExitCode, UserError, errors_in
from termite.engine.fleet.coordinator import COORDINATOR_PORT, CoordinatorConfig, serve_coordinator
from termite.engine.host import preflight
from termite.engine.host.descriptors import raise_file_limit
from termite.engine.host.log_tail import LogTail
from termite.engine.host.machine import read_most_tasks, usable_cores
from termite.engine.host.meminfo import read_memory
from termite.engine.host.native_programs import native_program
from termite.engine.host.ownership import find_stranger
from termite.engine.host.service_manager import NOBODY, ServiceManager, take_service_manager
from termite.engine.loop.task_tree import show_tasks_on_signal
from termite.engine.model import DEFAULT_STORE_BYTES, DEFAULT_STORE_FILES, JobNetwork, StoreLimits
from termite.engine.paths import allow_deep_paths
from termite.engine.wire.addresses import split_address
from termite.engine.wire.identity import read_secret
from termite.engine.worker.job_group import AUTO, job_group
from termite.engine.worker.job_shares import job_limits
from termite.engine.worker.mirror_homes import DEFAULT_USER_BASE, MAX_MIRRORS, check_users
from termite.engine.worker.worker_daemon import WORKER_PORT, WorkerConfig, serve_worker

HTTP_PORT = 1241  # termite-ctl web has 1240
PASTA_PLACES = ("/usr/local/bin", "/usr/bin")  # where packages put it, if PATH does not lead there

Serve = Callable[[trio.TaskStatus[str]], Awaitable[None]]


def run_daemon(
    program: str, serve: Serve, announce: str, places: Mapping[str, object], manager: ServiceManager = NOBODY
) -> int:
    """Run `serve` until SIGINT, SIGTERM or SIGHUP, and return the exit code. Log tasks at SIGUSR1.

    `announce` is printed on stdout as soon as the daemon serves; {address} in it is replaced.
    `places` are those in which the daemon leaves something if it is killed (`footprints`).
    `manager` is notified when the daemon serves, and when it ends.
    """

    async def main() -> None:
        # If nohup made SIGHUP ignored, it stays ignored.
        hang_up = [signal.SIGHUP] if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL else []
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, *hang_up) as signals:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_cancel_on_signal, signals, nursery.cancel_scope, manager)
                nursery.start_soon(show_tasks_on_signal)
                address = await nursery.start(_serve_to_the_end, serve, nursery.cancel_scope)
                announced = announce.format(address=address)
                print(f"{program}: {announced}", flush=True)
                await manager.notify_ready(announced.partition("\n")[0])  # all users see it: no token of pages
                _clean_up_after_others(places)

    gc.freeze()
    gc.set_threshold(50_000, 20, 100)  # searching a tree of 100,000 names for cycles costs more than it frees
    # With an umask of 0777 termite could not enter its own directories. Jobs and results have
    # modes of their own.
    os.umask(0o022)
    raise_file_limit()
    allow_deep_paths()
    try:
        with footprint(places):
            trio.run(main)
    except* UserError as group:
        for error in errors_in(group):
            report(program, error)
        return_code: int = ExitCode.FAILED
    else:
        return_code = 0
    return return_code


def _clean_up_after_others(places: Mapping[str, object]) -> None:
    """Start to clean up after killed daemons, now that `places`, those of this one, are in use."""
    pid = None if places.get(MOVED) else start_sweep()
    if pid is not None:
        threading.Thread(target=os.waitpid, args=(pid, 0), daemon=True).start()


async def _serve_to_the_end(serve: Serve, daemon: trio.CancelScope, task_status: trio.TaskStatus[str]) -> None:
    await serve(task_status)
    daemon.cancel()  # the daemon has ended: a client asked for it, or it was idle for too long


async def _cancel_on_signal(signals: AsyncIterator[int], scope: trio.CancelScope, manager: ServiceManager) -> None:
    async for _ in signals:
        manager.notify_stopping()
        scope.cancel()


# -- termite-coordinator ----------------------------------------------------------------------------------------------


def coordinator(argv: Sequence[str] | None = None) -> int:
    """Run the command termite-coordinator and return its exit code."""
    program = "termite-coordinator"
    try:
        flags = coordinator_parser(program).parse_flags(sys.argv[1:] if argv is None else argv)
        check_variables(os.environ)
        start_log(flags)
        secret = read_secret(flags.secret)
        pages = _farm_pages(flags) if flags.http else None
    except UserError as error:
        report(program, error)
        return ExitCode.FAILED
    config = CoordinatorConfig(secret, flags.listen, flags.port, pages_key=pages.key if pages else b"")

    async def serve(task_status: trio.TaskStatus[str]) -> None:
        async with trio.open_nursery() as nursery:
            address = await nursery.start(serve_coordinator, config)
            task_status.started(address)
            if pages is not None:
                place = (config.listen or LOCALHOST, split_address(address, 0)[1])
                nursery.start_soon(keep_pages, pages, secret, place)

    announce = f"listens on {{address}}\n{program}: pages at {pages.url}" if pages else "listens on {address}"
    return run_daemon(program, serve, announce, {}, take_service_manager())


def _farm_pages(flags: argparse.Namespace) -> FarmPages:
    """Open the address for pages. Raise UserError if that is impossible."""
    address = parse_page_address(flags.http, HTTP_PORT)
    pages = open_farm_pages(address, flags.http_name)
    if not address.is_loopback:
        print(
            "termite-coordinator: these pages are not encrypted: whoever reads this network can read the token",
            file=sys.stderr,
        )
    return pages


def coordinator_parser(program: str) -> Parser:
    """Return the parser of the flags of termite-coordinator."""
    parser = Parser(
        program,
        "Tell masters which workers there are. One coordinator serves all machines; it may be restarted at any time.",
        "termite-coordinator -secret secret.txt",
    )
    add = parser.add_argument
    add("--port", type=parse_port, default=COORDINATOR_PORT, help="TCP port; 0: any free one")
    http = "serve pages of the farm, on this machine's loopback unless HOST says otherwise; port 0: any free one"
    add("--http", default="", metavar="[HOST:]PORT", help=http)
    name = "a name by which browsers reach the pages; may be repeated"
    add("--http-name", action="append", default=[], metavar="NAME", help=name)
    _add_common_flags(parser)
    return parser


# -- termite-worker ---------------------------------------------------------------------------------------------------


def worker(argv: Sequence[str] | None = None) -> int:
    """Run the command termite-worker and return its exit code."""
    program = "termite-worker"
    try:
        flags = worker_parser(program).parse_flags(sys.argv[1:] if argv is None else argv)
        check_variables(os.environ)
        tail = start_log(flags)
        config = worker_config(flags, read_secret(flags.secret), tail)
    except UserError as error:
        report(program, error)
        return ExitCode.FAILED

    async def serve(task_status: trio.TaskStatus[str]) -> None:
        with job_group(flags.cgroup, read_memory("MemTotal") - config.limits.reserve_bytes) as group:
            await serve_worker(dataclasses.replace(config, group=group, drain_signal=signal.SIGUSR2), task_status)

    where = f"coordinator {config.coordinator}" if config.coordinator else "no coordinator"
    announce = f"listens on {{address}}, {config.slots} slots, {where}"
    return run_daemon(program, serve, announce, worker_places(config.cache, config.tmpdir), take_service_manager())


def worker_config(flags: argparse.Namespace, secret: bytes, tail: LogTail) -> WorkerConfig:
    """Return the configuration that the flags describe. `tail` is that of the worker's log.

    Raise UserError if this machine cannot run jobs.
    """
    root = os.geteuid() == 0
    users = range(flags.user_base, flags.user_base + MAX_MIRRORS) if root else None
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
        cache=(flags.cachedir or default_cache()).absolute(),  # mirrors have another working directory
        tmpdir=flags.tmpdir.absolute(),
        sandbox=sandbox,
        tmpfs=_wants_tmpfs(flags.scratch, machine.kernel),
        users=users,
        name=flags.name,
        listen=flags.listen,
        port=flags.port,
        advertise=flags.advertise,
        log_level=flags.log_level,
        store=StoreLimits(flags.cache_size, flags.cache_files),
        network=job_network(flags.network, root=root),
        limits=job_limits(
            flags.jobs, read_most_tasks(), read_memory("MemTotal"), flags.job_processes or 0, flags.job_memory or 0
        ),
        scratch_bytes=flags.scratch_size or 0,
        log_tail=tail,
    )


def job_network(wanted: str, *, root: bool) -> JobNetwork:
    """Return the network that the flag -network wants for jobs.

    Raise UserError if the program that a private network needs is missing.
    """
    if wanted != "private":
        return JobNetwork(is_given=wanted == "allow")
    pasta = shutil.which("pasta", path=os.pathsep.join((os.environ.get("PATH", ""), *PASTA_PLACES)))
    if pasta is None:
        raise UserError("-network private needs the program pasta", hint="install it (Debian: apt-get install passt)")
    if root:
        preflight.check_readable_by_others(Path(pasta), "pasta")
    return JobNetwork(is_given=True, pasta=os.path.abspath(pasta))


_PACKAGE = Path(__file__).parent.parent


def default_tmpdir() -> Path:
    """Return the directory for scratch files: $TMPDIR, or else /var/tmp.

    /var/tmp is rarely a tmpfs, so big outputs fit there. Root may have the $TMPDIR of another user
    (`sudo -E`), which does not count.
    """
    named = Path(os.environ.get("TMPDIR", ""))
    is_usable = named.is_absolute() and named.is_dir() and not find_stranger(named)
    return named if is_usable else Path("/var/tmp")


def _wants_tmpfs(scratch: str, kernel: str) -> bool:
    possible = preflight.has_tmpfs_upper(kernel)
    if scratch == "tmpfs" and not possible:
        raise UserError(f"Linux {kernel} cannot keep scratch files in a tmpfs (6.6 can)", hint="use -scratch disk")
    return possible and scratch != "disk"


def worker_parser(program: str) -> Parser:
    """Return the parser of the flags of termite-worker. An embedded worker uses it, too."""
    parser = Parser(
        program,
        "Run jobs of other machines on this one, each in a sandbox that shows the files of the master's machine. "
        "As root, jobs run as users without privilege (see -user-base); otherwise as you.",
        "termite-worker -jobs 8 -secret secret.txt -coordinator buildhost",
    )
    add = parser.add_argument
    add(
        "--jobs",
        type=parse_positive,
        default=2 * usable_cores(),
        metavar="N",
        help="number of jobs at once, for all masters together",
    )
    coordinator = f"localhost:{COORDINATOR_PORT}"
    add("--coordinator", default=coordinator, metavar="HOST[:PORT]", help="coordinator to register with; empty: none")
    add("--port", type=parse_port, default=WORKER_PORT, help="TCP port; 0: any free one")
    add(
        "--advertise",
        default="",
        metavar="HOST[:PORT]",
        help="address that masters connect to (default: the address that the coordinator sees)",
    )
    add("--name", default="", help="name in status and logs (default: host name and port)")
    _add_place_flags(parser)
    _add_rights_flags(parser)
    _add_common_flags(parser)
    return parser


def _add_place_flags(parser: Parser) -> None:
    """Add the flags for the places on a worker's disk, and for their sizes."""
    add = parser.add_argument
    add(
        "--cachedir",
        type=Path,
        metavar="DIR",
        help="files kept between jobs (default: /var/cache/termite; ~/.cache/termite of an ordinary user)",
    )
    add(
        "--cache-size",
        type=parse_size,
        default=f"{DEFAULT_STORE_BYTES // 1024**3}G",
        metavar="SIZE",
        help="size of the store of file contents in -cachedir, in bytes or as 500M, 20G, 1T. As root, it is that of "
        "all stores: each user that jobs run as has one, and the first gets a half",
    )
    add(
        "--cache-files",
        type=parse_positive,
        default=DEFAULT_STORE_FILES,
        metavar="N",
        help="number of files in the store, or in all of them",
    )
    _add_scratch_flags(parser)


def _add_scratch_flags(parser: Parser) -> None:
    """Add the flags for the files that running jobs write."""
    add = parser.add_argument
    add(
        "--tmpdir",
        type=Path,
        default=default_tmpdir(),
        metavar="DIR",
        help="directory for the files that running jobs write",
    )
    add(
        "--scratch",
        choices=("auto", "tmpfs", "disk"),
        default="auto",
        help="keep the files that running jobs write in memory or in -tmpdir; auto: memory from Linux 6.6 on",
    )
    size = "memory for the files that running jobs write, for all leases together (default: half of what is available)"
    add("--scratch-size", type=parse_size, metavar="SIZE", help=size)


def _add_rights_flags(parser: Parser) -> None:
    """Add the flags for what jobs may do on a worker."""
    add = parser.add_argument
    add(
        "--job-processes",
        type=parse_positive,
        metavar="N",
        help="processes and threads that a job may have; a job with more runs elsewhere. Default: half of the "
        "machine's for all jobs together, from 512 to 4096",
    )
    add(
        "--job-memory",
        type=parse_size,
        metavar="SIZE",
        help="memory that a job may take; a job that takes more runs elsewhere (default: 95%% of the machine's)",
    )
    group = "control group to divide, so that all jobs leave 5%% of the memory; auto: our own, if systemd delegates it"
    add("--cgroup", default=AUTO, metavar="auto|none|DIR", help=group)
    add(
        "--network",
        choices=("deny", "allow", "private"),
        default="deny",
        help="network of a job to which a rule of its master gives one. With deny, the command runs on the master's "
        "machine. With allow, the job reaches whatever this machine and your user can reach, loopback included. With "
        "private, it reaches other machines, but neither this one nor link-local addresses (needs pasta)",
    )
    add(
        "--user-base",
        type=parse_positive,
        default=DEFAULT_USER_BASE,
        metavar="UID",
        help=f"first of the {MAX_MIRRORS} user ids that jobs of a root worker run as",
    )


# -- both -------------------------------------------------------------------------------------------------------------


def _add_common_flags(parser: Parser) -> None:
    add = parser.add_argument
    add(
        "--secret",
        type=Path,
        default=Path("secret.txt"),
        metavar="FILE",
        help="file with the secret that all machines share, mode 0600",
    )
    add("--listen", default="", metavar="ADDRESS", help="address of this machine to listen on (default: all)")
    add_log_flags(parser)
