"""Measure the traffic between master and worker: of one job, and of builds over a thin link.

The link is a relay (relay.py) between master and worker. The relay delays and limits bytes, but
does not model packet loss or TCP's slow start, which a real line has too.
"""

import contextlib
import dataclasses
import os
import signal
import subprocess
from collections.abc import Callable, Iterator

from bench import daemons
from bench.builds import EXAMPLES, Ground, Remote, Traffic, build_remotely, cluster, inside, prepare, traffic_of
from bench.figures import Figure, Target, Targets, compared, of_plain
from bench.llvm import llvm_ground
from bench.rounds import BenchError, Settings, alternate, repeated
from bench.turns import alone
from projects import COMMANDS

ROUND_TRIP_S = 0.020
DOWN_BYTES_S = 25e6 / 8  # from the worker to the user's machine
UP_BYTES_S = 5e6 / 8
SECOND = "thin link, second build, every job remote"
THIN, OPENED = "thin link", "relay opened"  # an opened relay copies all bytes too
JOB = [str(COMMANDS / "termite"), "gcc", "-O2", "-c", "lapi.c", "-o", "lapi.o"]


def measure_jobs(settings: Settings) -> list[Figure]:
    """Measure a compilation of Lua on a worker that has none of its files, and once more."""
    ground = prepare(settings, EXAMPLES / "lua" / "example.toml")

    def both() -> tuple[Traffic, Traffic]:
        with cluster(ground) as (master, _):
            return _run_job(master), _run_job(master)

    runs = repeated(settings, "a cold job and a warm one", both)
    figures = []
    for at, name in enumerate(("cold job", "warm job")):
        traffics = [pair[at] for pair in runs]
        target = Target(1) if name == "warm job" else None
        figures += [
            Figure(name, "requests, each at most a round trip", "", _floats(traffics, _requests), target),
            *(Figure(name, f"{kind} requests", "", _floats(traffics, _of_kind(kind))) for kind in _kinds(traffics)),
            Figure(name, "sent to the worker", "KB", _floats(traffics, lambda one: one.sent_bytes / 1024)),
            Figure(name, "received from the worker", "KB", _floats(traffics, lambda one: one.received_bytes / 1024)),
        ]
    return figures


def measure_thin(settings: Settings) -> list[Figure]:
    """Measure LLVM's second build over a thin link against an opened relay.

    The first build over the thin link is measured once. The link has the speed of a home
    connection. The relay is between master and worker in both cases. Every job is remote: otherwise
    a slow link would make more commands count as short, and fewer of them would run on the worker.
    """
    ground = llvm_ground(dataclasses.replace(settings, short="0"))
    with _relayed_cluster(ground) as (master, worker, set_thin):
        settings.say("the first build over the thin link, once")
        first = alone(settings, build_remotely(ground, master, worker))

        def side(is_thin: bool) -> Remote:
            set_thin(is_thin)
            return alone(settings, build_remotely(ground, master, worker))

        runs = alternate(settings, {OPENED: lambda: side(False), THIN: lambda: side(True)})
    opened, thin = ([one.measured for one in runs[name]] for name in (OPENED, THIN))
    second = compared(SECOND, THIN, thin, opened, Targets(wall=Target(1.3)))
    jobs = first.jobs["remote"]
    return [
        *(
            dataclasses.replace(figure, name=figure.name.replace("plain", OPENED))
            for figure in (*of_plain(SECOND, opened), *second)
        ),
        *(figure for side, ran in runs.items() for figure in inside(f"{SECOND}: {side}", ran)),
        Figure("thin link, first build", "wall", "s", (first.measured.wall_s,)),
        Figure("thin link, first build", "sent to the worker", "MB", (first.traffic.sent_bytes / 2**20,)),
        Figure("thin link, first build", "received from the worker", "MB", (first.traffic.received_bytes / 2**20,)),
        Figure("thin link, first build", "requests a job", "", (first.traffic.requests.total() / jobs,)),
    ]


@contextlib.contextmanager
def _relayed_cluster(
    ground: Ground,
) -> Iterator[tuple[daemons.Master, daemons.Worker, Callable[[bool], None]]]:
    """Start a cluster whose master reaches the worker through a relay; stop all at the end.

    Yield also a function that makes the relay thin (True) or opens it (False).
    """
    port = daemons.free_port()
    links = [f"{ROUND_TRIP_S / 2}", f"{UP_BYTES_S}", f"{DOWN_BYTES_S}"]
    command = daemons.module("relay", f"{daemons.HOST}:{port}", *links)
    base = ground.place.logs.parent
    with (
        daemons.daemon(command, base / "relay.log", daemons.environment(base)) as (process, at),
        cluster(ground, "--port", str(port), "--advertise", at) as (master, worker),
    ):

        def set_thin(is_thin: bool) -> None:
            os.kill(process.pid, signal.SIGUSR1 if is_thin else signal.SIGUSR2)

        yield master, worker, set_thin


def _run_job(master: daemons.Master) -> Traffic:
    (master.tree / "src" / "lapi.o").unlink(missing_ok=True)  # otherwise the equal result would not be sent again
    before = master.status()
    done = subprocess.run(
        JOB, cwd=master.tree / "src", env=master.env, stdin=subprocess.DEVNULL, capture_output=True, timeout=120
    )
    after = master.status()
    if done.returncode or after["jobs"]["remote"] != before["jobs"]["remote"] + 1:
        raise BenchError(f"the job did not run on the worker: {done.stderr.decode(errors='replace')}")
    traffic = traffic_of(after).since(traffic_of(before))
    for kind in ("OpenLease", "Ping"):  # these belong to the lease, not to the job
        del traffic.requests[kind]
    return traffic


def _requests(traffic: Traffic) -> float:
    return traffic.requests.total()


def _of_kind(kind: str) -> Callable[[Traffic], float]:
    return lambda traffic: traffic.requests[kind]


def _kinds(traffics: list[Traffic]) -> list[str]:
    return sorted({kind for traffic in traffics for kind in traffic.requests})


def _floats(traffics: list[Traffic], of: Callable[[Traffic], float]) -> tuple[float, ...]:
    return tuple(float(of(traffic)) for traffic in traffics)
