"""The soak: thousands of jobs whose files have names that were never there before.

All that a daemon remembers of each name must level off. The tables of the master come from its
status, those of the mirrors from the log line at the end of a lease. Each worker has a short lease
and a long one, whose tables are compared: the master starts again in between. Resident memory,
descriptors and mounts are printed; only tables are judged, because a process rarely gives memory
back.
"""

import random
import re
import shutil
import time
from pathlib import Path

from tests.e2e.places import IS_ROOT, place
from tests.torture.one_round import Result, ended
from tests.torture.processes import PROC, Kind
from tests.torture.project import Project, Tool
from tests.torture.rig import LOOK_S, WORKERS, Rig, Settings
from tests.torture.scene import Scene
from tests.torture.steps import SMALL

SOAK = "soak"
JOBS = 10_000
BATCH = 200
LIMIT_S = 120.0  # of one batch
SLACK = 300  # entries by which a table may vary between two looks
GROWTH_PER_JOB = 0.05  # entries; a table that keeps something of each job has one or more
MIRROR_SLACK = 100  # the same for the tables of a mirror
SHORT_LEASE = 5  # one of so many batches, and one at least, is of the short lease
# Files whose unread versions the mirror counts, digests of its linked files, and digests in the
# master's memory have limits of some thousand entries: they are caches.
CACHES = {"unopened_files": 2500, "link_digests": 1200, "known_digests": 3500}
_STATISTICS = re.compile(r"lease-ended jobs=(\d+) statistics=(\S+)")
_MAKEFILE = """all: $(patsubst %,$(BATCH)-%.out,{numbers})
%.out:
\t@echo $* >$*.tmp && cat $*.tmp >>$@ && rm $*.tmp
\t@mkdir ../stays/$*.d && cp $@ ../stays/$*.d/x && ln ../stays/$*.d/x ../stays/$*.y
\t@cat ../stays/$*.y ../stays/$*.d/x >/dev/null && rm -r ../stays/$*.d
"""


def soak(base: Path, seed: int, end: float, jobs: int = JOBS) -> Result:
    """Run `jobs` jobs, or as many as there is time for until `end` (of time.monotonic)."""
    result = Result(SOAK, seed)
    before = time.monotonic()
    here = base / "now"
    mark = f"torture-{SOAK}-{time.time_ns()}"
    with place("root" if IS_ROOT else "ordinary", here, mark) as where:
        rig = Rig(where, here / "tree", Settings(), "0")
        scene = Scene(Project(seed, Tool.MAKE, SMALL, True), rig, mark, random.Random(seed), ())
        with ended(scene):
            rig.mount_tree()
            rig.start()
            _soak(scene, result, end, jobs)
        scene.problems += _judge_mirrors(scene)
    result.problems = scene.problems
    result.injected = [f"{result.jobs} jobs"]
    result.seconds = time.monotonic() - before
    if result.problems:
        result.kept = base / f"failed-{SOAK}-{seed}"
        here.rename(result.kept)
    else:
        shutil.rmtree(here)
    return result


def _soak(scene: Scene, result: Result, end: float, jobs: int) -> None:
    rig = scene.rig
    numbers = " ".join(map(str, range(BATCH)))
    looks: list[tuple[int, dict[str, int]]] = []
    stays = _make_directory(scene, "stays")  # its names come and go, but no directory goes with them
    batches = max(jobs // BATCH, 3)
    for batch in range(batches):
        if time.monotonic() > end and batch >= 3:
            break
        if batch == max(batches // SHORT_LEASE, 1):
            scene.problems += _start_master_again(scene)
        directory = _make_directory(scene, f"batch{batch}")
        (directory / "Makefile").write_text(_MAKEFILE.format(numbers=numbers))
        command = [rig.where.termite("termite-make"), "-j8", f"BATCH=b{batch}"]
        done = rig.where.run(command, rig.tree / directory.name, merge=True, timeout_s=LIMIT_S)
        result.builds += 1
        result.jobs += BATCH
        made = {path.name: path.read_text() for path in directory.glob("*.out")}
        wanted = {f"b{batch}-{n}.out": f"b{batch}-{n}\n" for n in range(BATCH)}
        if done.code or made != wanted:
            scene.problems.append(f"wrong: batch {batch} ends with {done.code}: {done.stdout[-300:]!r}")
        shutil.rmtree(directory)
        unwanted = sorted(path.name for path in stays.iterdir() if path.suffix != ".y")
        if unwanted:
            scene.problems.append(f"wrong: batch {batch} leaves {unwanted[:5]} of {len(unwanted)}")
        shutil.rmtree(stays)
        stays = _make_directory(scene, stays.name)
        looks.append((result.jobs, _tables(scene)))
        if batch % 10 == 0 or result.jobs >= jobs:
            print(f"    soak {result.jobs} jobs: {_figures(scene)} {looks[-1][1]}", flush=True)
    scene.problems += _judge_master(looks)


def _start_master_again(scene: Scene) -> list[str]:
    """End the leases, whose tables the mirrors then tell, and return what went wrong."""
    rig = scene.rig
    problems = rig.stop_daemon("master")
    deadline = time.monotonic() + LIMIT_S
    while not all(_STATISTICS.search(_log_of(scene, worker)) for worker in WORKERS):
        if time.monotonic() > deadline:
            return [*problems, "hang: the leases do not end with their master"]
        time.sleep(LOOK_S)
    rig.start_daemon("master")
    rig.wait_until_complete()
    return problems


def _log_of(scene: Scene, worker: str) -> str:
    return scene.rig.log(worker).read_text(errors="replace")


def _make_directory(scene: Scene, name: str) -> Path:
    directory = scene.tree / name
    directory.mkdir()
    if IS_ROOT:
        shutil.chown(directory, scene.rig.where.uid, scene.rig.where.uid)
    return directory


def _tables(scene: Scene) -> dict[str, int]:
    status = scene.rig.status()
    tree = status.get("tree", {})
    return {name: tree.get(name, 0) for name in _MASTER_TABLES}


def _judge_master(looks: list[tuple[int, dict[str, int]]]) -> list[str]:
    """Compare the last look with the one after the first third of the jobs."""
    (jobs, first), (all_jobs, last) = looks[len(looks) // 3], looks[-1]
    allowed = SLACK + GROWTH_PER_JOB * (all_jobs - jobs)
    return [
        f"left: the master's table {name} grows from {first[name]} to {last[name]} in {all_jobs - jobs} jobs"
        for name in first
        if last[name] - first[name] > allowed and last[name] > CACHES.get(name, 0)
    ]


def _judge_mirrors(scene: Scene) -> list[str]:
    """Compare the tables of each mirror, which its last words have, of both leases."""
    problems = []
    for worker in WORKERS:
        looks = [(int(jobs), _tables_in(text)) for jobs, text in _STATISTICS.findall(_log_of(scene, worker))]
        print(f"    soak {worker}: {looks}", flush=True)
        problems += judge_leases(worker, looks)
    return problems


def _tables_in(text: str) -> dict[str, int]:
    return {name: int(count) for name, count in re.findall(r"(\w+):(\d+)", text) if name in MIRROR_TABLES}


def judge_leases(worker: str, looks: list[tuple[int, dict[str, int]]]) -> list[str]:
    """Return which tables of a worker's mirrors grow with the number of jobs of their lease."""
    looks = sorted((look for look in looks if look[0]), key=lambda look: look[0])
    if len(looks) < 2 or any(len(tables) < len(MIRROR_TABLES) for _, tables in looks):
        return [f"wrong: {worker} has told of no more than {looks}"]
    (jobs, first), (all_jobs, last) = looks[0], looks[-1]
    allowed = MIRROR_SLACK + GROWTH_PER_JOB * (all_jobs - jobs)
    return [
        f"left: the mirror's table {name} of {worker} has {first[name]} entries after {jobs} jobs, "
        f"and {last[name]} after {all_jobs}"
        for name in first
        if last[name] - first[name] > allowed and last[name] > CACHES.get(name, 0)
    ]


_MASTER_TABLES = (
    "directories",
    "entries",
    "watches",
    "unwatched",
    "known_digests",
    "linked_files",
    "lost_links",
    "changesets",
    "results",
)
# Counters of events grow with the jobs, so that only these names are sizes. `known_names` are those
# of the user's tree, which `entries` of the master's tables judges.
MIRROR_TABLES = (
    "inodes",
    "known_directories",
    "link_digests",
    "loose_names",
    "layers",
    "layer_names",
    "sealed_names",
    "cut_names",
    "frozen_directories",
    "bases",
    "deltas",
    "warm_files",
    "warm_wanted",
    "unopened_files",
)


def _figures(scene: Scene) -> str:
    """Return resident memory in MB, descriptors and mounts of the master and the mirrors."""
    words = []
    kinds = scene.kinds()
    for kind in (Kind.MASTER, Kind.MIRROR, Kind.WORKER, Kind.COORDINATOR):
        for pid in kinds.get(kind, ()):
            directory = PROC / str(pid)
            pages = int((directory / "statm").read_text().split()[1])
            descriptors = len(list((directory / "fd").iterdir()))
            mounts = len((directory / "mountinfo").read_text().splitlines())
            words.append(f"{kind.value} {pages * 4 // 1024} MB {descriptors} fds {mounts} mounts")
    return ", ".join(words)
