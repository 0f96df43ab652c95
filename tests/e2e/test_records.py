"""Records say what has happened: builds whose jobs, places, times and exits the tests arrange."""

import itertools
import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from termite.cli.places import tree_name
from termite.engine.errors import Reason
from termite.engine.history.logic.job_record import BuildRecord, JobRecord, Where, Why
from termite.engine.history.past_builds import PastBuilds
from termite.engine.host.process_exit import ExitUnknown, exit_of
from tests.e2e.cluster import Cluster, Tree, ancestors, cluster, daemon, new_tree, processes_running
from tests.e2e.conftest import USERS, MakePlace
from tests.e2e.places import COMMANDS
from tests.e2e.shown_builds import check_views, pages
from tests.e2e.waiting import wait_until

READER = Path(__file__).with_name("live_reader.py")
SLACK_S = 0.05  # of clocks that are compared through a lease
SECRET = "hunter2hunter2"
RULES = r"""[
  {"Regexp": "^: here", "Local": true},
  {"Regexp": "silent", "Log": false},
  {"Regexp": "limited", "Timeout": 1},
  {"Regexp": "below", "Local": true, "Recurse": true}
]"""
STAMP = "date +%s.%N"
MAKEFILE = f"""
all: far failed killed here dead outside silent secret limited heavy cached
.PHONY: all far failed killed here dead outside silent secret limited heavy cached
far:
	@{STAMP} >far.begin; sleep 0.3; echo out; echo err >&2; {STAMP} >far.end
failed:
	@echo something "$$TERMITE_BUILD" >made; exit 3
killed:
	@kill -9 $$$$
here:
	@: here; env >here.env; {STAMP} >here.begin; sleep 0.2; {STAMP} >here.end; exit 4
dead:
	@: here dead; kill -15 $$$$
outside:
	@echo note >>$(HOME)/outside.txt; exit 5
silent:
	@echo silent; exit 0
secret:
	@API_TOKEN={SECRET} sh -c 'echo "API_TOKEN=$$API_TOKEN"'
limited:
	@echo limited; exec sleep 30
heavy:
	@i=0; while test $$i -lt 200000; do i=$$((i+1)); done; \\
	dd if=/dev/zero of=/dev/null bs=48M count=1 2>&1; times >heavy.times
cached:
	@cd; mkdir -p .cache; echo note >.cache/note
"""


@pytest.fixture(scope="module", params=USERS)
def whole(request: pytest.FixtureRequest, make_place: MakePlace) -> Iterator[Cluster]:
    with make_place(request.param) as where, cluster(new_tree(where), [where, where]) as running:
        running.tree.write(".termite-localrc", RULES)
        yield running


def past(tree: Tree) -> PastBuilds:
    top = tree.where.base / "home" / ".local" / "state" / "termite" / "records"
    return PastBuilds(top / tree_name(tree.path))


def last_build(tree: Tree, front_end: str = "make") -> tuple[BuildRecord, list[JobRecord]]:
    """Return the newest build of a front end and its jobs. Its files must be whole."""
    history = past(tree)
    build = next(build for build in history.builds() if build.front_end == front_end)
    jobs = history.jobs(build.id)
    assert not history.damages
    return build, jobs


def the(jobs: list[JobRecord], words: str) -> JobRecord:
    (found,) = [job for job in jobs if words in job.text]
    return found


def kernel_tells_exits() -> bool:
    """Return whether this kernel tells holders of a pidfd how a process has ended."""
    with subprocess.Popen(["true"]) as process:
        pidfd = os.pidfd_open(process.pid)
    try:
        return exit_of(pidfd) == 0
    except ExitUnknown:
        return False
    finally:
        os.close(pidfd)


def tree_text(tree: Tree, name: str) -> str:
    return (tree.path / name).read_text()


def stamp(tree: Tree, name: str) -> float:
    return float((tree.path / name).read_text())


def test_a_build_leaves_the_truth(whole: Cluster) -> None:
    tree = whole.tree
    tree.write("Makefile", MAKEFILE)
    before = whole.jobs_by_worker()
    built = tree.make("-k", "-j3")
    assert built.code == 2, built
    build, jobs = last_build(tree)  # at once: the files are whole when the front end has ended
    assert (build.text, build.exit_code, build.signal) == ("make -k -j3", 2, 0)
    assert build.jobs == len(jobs) == 11
    assert build.started_s <= min(job.queued_s for job in jobs)
    assert max(job.home_s for job in jobs) <= build.ended_s
    assert all(job.build == build.id and job.tool == "make" and job.cwd == str(tree.path) for job in jobs)

    far = the(jobs, "far.begin")
    assert (far.where, far.cause.kind, far.exit_code, far.signal) == (Where.WORKER, Why.NO_RULE, 0, 0)
    assert far.output == b"out\nerr\n" or far.output == b"err\nout\n"
    assert far.output_bytes == 8 and set(far.files) == {b"far.begin", b"far.end"} and far.file_count == 2
    by_us = [far.queued_s, far.sent_s, far.started_s, far.ended_s, far.home_s]
    by_it = [far.started_s, stamp(tree, "far.begin"), stamp(tree, "far.end"), far.ended_s]
    for times in (by_us, by_it):
        assert all(first <= second + SLACK_S for first, second in itertools.pairwise(times)), times
    assert far.peak_memory_bytes > 0
    for field in ("sent_bytes", "received_bytes", "wire_requests", "fuse_requests"):  # jobs share their leases
        assert sum(getattr(job, field) for job in jobs) > 0, field

    failed = the(jobs, "something")
    assert (failed.exit_code, failed.files) == (3, (b"made",))
    assert (tree.path / "made").read_text() == "something \n", "jobs do not see the name of the build"
    assert "TERMITE_BUILD" not in (tree.path / "here.env").read_text()
    assert (the(jobs, "kill -9").exit_code, the(jobs, "kill -9").signal) == (-1, 9)

    here = the(jobs, "here.begin")
    assert (here.where, here.cause.kind, here.worker) == (Where.HERE, Why.RULE, "")
    assert (here.cause.regexp, here.cause.source) == ("^: here", ".termite-localrc: entry 1")
    assert here.sent_s <= stamp(tree, "here.begin") < stamp(tree, "here.end") <= here.ended_s
    known = kernel_tells_exits()
    assert here.exit_code == (4 if known else -1)
    assert the(jobs, "here dead").signal == (15 if known else 0)

    outside = the(jobs, "outside.txt")
    assert (outside.where, outside.cause.kind) == (Where.HERE, Why.FALL_BACK)
    assert outside.cause.reason == Reason.WRITES_OUTSIDE.value and "outside.txt" in outside.cause.detail
    assert [attempt.reason for attempt in outside.attempts] == [Reason.WRITES_OUTSIDE.value]
    assert outside.attempts[0].worker in ("w1", "w2") and outside.ran_again
    assert outside.exit_code == (5 if known else -1)

    silent = the(jobs, "echo silent")
    assert (silent.output, silent.output_bytes, silent.is_output_kept) == (b"", 7, False)
    secret = the(jobs, "API_TOKEN")
    assert SECRET not in secret.text and secret.output == b"API_TOKEN=***\n"
    limited = the(jobs, "limited")
    assert limited.timed_out and limited.cause.regexp == "limited" and limited.ended_s - limited.started_s >= 0.9

    heavy = the(jobs, "heavy.times")
    used_s = sum(
        float(minutes) * 60 + float(rest)
        for minutes, rest in re.findall(r"(\d+)m([\d.]+)s", tree_text(tree, "heavy.times"))
    )
    assert used_s - SLACK_S <= heavy.user_s + heavy.system_s <= used_s + 0.5 and used_s > 0.05
    assert 48 * 2**20 < heavy.peak_memory_bytes < 120 * 2**20
    cached = the(jobs, "echo note >.cache")
    dropped = os.fsencode(tree.where.base / "home/.cache/note")
    assert (cached.where, cached.exit_code, cached.dropped_count) == (Where.WORKER, 0, 1) and cached.dropped == (
        dropped,
    )
    assert not os.path.exists(dropped)

    counts = build.counts
    assert (counts.remote, counts.local, counts.failed, counts.dropped_writes) == (8, 3, 0, 1)
    assert counts.fallbacks == {Reason.WRITES_OUTSIDE.value: 1} and counts.retried == 1
    attempts = [job.worker for job in jobs if job.worker] + [job.attempts[0].worker for job in jobs if job.attempts]
    after = whole.jobs_by_worker()
    assert {name: attempts.count(name) for name in after} == {
        name: count - before.get(name, 0) for name, count in after.items()
    }
    no_two_jobs_share_a_slot(jobs)
    files = list(past(tree).directory.iterdir())
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    assert past(tree).directory.stat().st_mode & 0o777 == 0o700
    assert not any(SECRET.encode() in path.read_bytes() for path in files)

    check_views(tree, build, jobs)
    second, jobs = (tree.make("-k", "-j3"), last_build(tree))[1]
    again = the(jobs, "outside.txt")
    assert (again.where, again.cause.kind, again.cause.reason) == (Where.HERE, Why.TIE, Reason.WRITES_OUTSIDE.value)
    assert second.expected_jobs == 11 and min(job.id for job in jobs) > build.last_job


def test_every_view_says_what_was_recorded(whole: Cluster) -> None:
    tree = whole.tree

    def said(*words: str) -> str:
        return tree.ctl(*words).stdout.decode()

    tree.write("Makefile", "all: one.txt two.txt\n%.txt:\n\techo $@ >$@; sleep 0.2\n")
    for name in ("one.txt", "two.txt", "build.md", "build.json"):
        (tree.path / name).unlink(missing_ok=True)
    for file in ("build.md", "build.json"):
        built = tree.make("-B", "-j2", env={"TERMITE_SUMMARY": file})
        assert built.code == 0 and b"termite:" not in built.stderr, built
    build, jobs = last_build(tree)
    one = the(jobs, "echo one.txt")
    written = json.loads((tree.path / "build.json").read_text())
    assert [job["id"] for job in written["jobs"]] == [job.id for job in jobs]
    assert f"| jobs | {len(jobs)}: 2 on workers |" in (tree.path / "build.md").read_text()
    assert said("last").splitlines()[1].split()[0] == str(build.id)
    assert f"worker    {one.worker}: " in said("last", str(build.id))
    listed = [json.loads(line) for line in said("jobs", "-json").splitlines()]
    assert [job["exit_code"] for job in listed] == [0, 0]
    for words in (("log", "one.txt"), ("log", str(one.id)), ("why", "one.txt")):
        shown = said(*words)
        assert f"place     {one.worker}:{one.slot}\n" in shown and f"wrote     {tree.path}/one.txt\n" in shown, shown
    assert "last run" in said("why", "echo one.txt >one.txt; sleep 0.2")
    trace = json.loads(said("trace", "-o", "-"))
    assert one.id in {event.get("args", {}).get("job") for event in trace["traceEvents"]}
    top = said("top", "-once")
    assert "0 running, 0 waiting" in top and {"w1", "w2"} <= set(top.split())
    blocked = tree.make("-B", env={"TERMITE_SUMMARY": "/proc/none/x"})
    assert blocked.code == 0 and b"/proc/none/x cannot be written" in blocked.stderr


def no_two_jobs_share_a_slot(jobs: list[JobRecord]) -> None:
    times: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for job in jobs:
        if job.sent_s and job.slot >= 0:
            times.setdefault((job.worker, job.slot), []).append((job.sent_s, job.home_s))
    for spans in times.values():
        spans.sort()
        assert all(first[1] <= second[0] + SLACK_S for first, second in itertools.pairwise(spans)), spans


def test_builds_at_the_same_time_are_told_apart(whole: Cluster) -> None:
    tree = whole.tree.subtree("two")
    cleared = f"@: below; env -i PATH=$(PATH) {tree.where.word('termite')} sh -c 'echo cleared'"
    tree.write("one.mk", f"all: below wait\nwait:\n\t@sleep 2; echo one\nbelow:\n\t{cleared}\n")
    tree.write("other.mk", "all:\n\t@sleep 2; echo other\n")
    make = tree.where.termite("termite-make")
    running = [tree.where.start([make, "-j2", "-f", name], tree.path) for name in ("one.mk", "other.mk")]

    def do_run() -> bool:
        status = whole.tree.status()
        return bool(status["jobs"]["phases"].get("running remotely") == 2 and status["builds"] == 2)

    wait_until(do_run, "both builds run")
    assert tree.termite("sh", "-c", "echo typed").code == 0
    for process in running:
        assert process.communicate(timeout=60)[1] == b""
    history = past(whole.tree)
    jobs_of = {
        build.text: sorted(job.text.split()[-1].strip("'") for job in history.jobs(build.id))
        for build in history.builds()
        if build.cwd == str(tree.path)
    }
    assert jobs_of == {"make -j2 -f one.mk": ["cleared", "cleared", "one"], "make -j2 -f other.mk": ["other"]}
    wait_until(lambda: any("echo typed" in job.text for job in last_build(whole.tree, "")[1]), "the typed command")


def test_readers_see_the_same_and_a_stopped_one_holds_nobody_up(whole: Cluster) -> None:
    tree = whole.tree.subtree("live")
    lines = "".join(f"j{n}:\n\t@: {'x' * 2000}; echo {n} >j{n}\n" for n in range(60))
    tree.write("Makefile", f"all: {' '.join(f'j{n}' for n in range(60))} here\nhere:\n\t@: here; sleep 0.2\n{lines}")
    argv = [str(COMMANDS / "python"), "-m", "tests.e2e.live_reader", str(whole.tree.path / ".termite-socket"), "1"]
    reader = tree.where.start(argv, READER.parents[2])
    assert reader.stdout is not None
    assert reader.stdout.readline() == b"reads\n"
    assert tree.make("-j4").code == 0
    shown = json.loads(reader.communicate(timeout=30)[0].splitlines()[-1])
    _, jobs = last_build(whole.tree)
    assert len(jobs) == 61 and shown["left"] == 0 and shown["missed"] == 0
    assert {"Snapshot", "BuildStarted", "JobQueued", "JobSent", "JobEnded", "JobHome", "BuildEnded"} <= set(
        shown["kinds"]
    )
    assert [(job["id"], job["exit_code"], job["home_s"]) for job in shown["home"]] == [
        (job.id, job.exit_code, job.home_s) for job in jobs
    ]
    assert 1 < shown["running"] <= 61
    assert {worker["name"]: worker["cores"] for worker in shown["workers"]} == dict.fromkeys(
        ("w1", "w2"), os.cpu_count()
    )


def test_what_is_stopped_or_forbidden_is_recorded_as_such(whole: Cluster) -> None:
    tree = whole.tree.subtree("stopped")
    process = tree.where.start([tree.where.termite("termite"), "sh", "-c", "sleep 1234.25"], tree.path)
    wait_until(lambda: bool(processes_running(b"sleep\0001234.25")), "the job runs")
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=30)
    outside = f"echo x >>{tree.where.base}/home/never.txt"
    assert tree.termite("sh", "-c", outside, env={"TERMITE_LOCAL": "never"}).code == 103
    assert tree.termite("sh", "-c", "echo switched", env={"TERMITE_LOCAL": "never"}).code == 0

    def jobs() -> list[JobRecord]:
        return [job for job in last_build(whole.tree, "")[1] if job.cwd == str(tree.path)]

    wait_until(lambda: len(jobs()) == 3, "the records are on the disk", lambda: str(jobs()))
    stopped, forbidden, switched = jobs()
    assert (stopped.where, stopped.cause.kind, stopped.signal) == (Where.NOWHERE, Why.CANCELLED, signal.SIGINT)
    assert stopped.worker in ("w1", "w2") and stopped.sent_s > 0
    for words in (("log", str(stopped.id)), ("jobs", "-build", str(stopped.build), "sleep 1234.25")):
        assert f" {stopped.worker}:{stopped.slot}" in whole.tree.ctl(*words).stdout.decode(), words
    assert (forbidden.where, forbidden.cause.kind, forbidden.exit_code) == (Where.NOWHERE, Why.FORBIDDEN, 103)
    assert forbidden.cause.reason == Reason.WRITES_OUTSIDE.value
    assert (switched.where, switched.cause.kind, switched.output) == (Where.WORKER, Why.SWITCHED, b"switched\n")


def test_a_lost_worker_and_a_killed_master_leave_the_truth(whole: Cluster) -> None:
    tree = whole.tree.subtree("lost")
    script = "if test -e again; then echo done; else echo half; exec sleep 1234.75; fi"
    nap = b"sleep\0001234.75"
    process = tree.where.start([tree.where.termite("termite"), "sh", "-c", script], tree.path)
    wait_until(lambda: bool(processes_running(nap)), "the job runs")
    chain = ancestors(processes_running(nap)[0])
    (lost,) = [n for n, worker in enumerate(whole.workers, 1) if worker.process.pid in chain]
    tree.write("again", "")
    whole.workers[lost - 1].process.kill()
    assert process.communicate(timeout=60)[0] == b"done\n"

    def jobs() -> list[JobRecord]:
        return [job for job in last_build(whole.tree, "")[1] if job.cwd == str(tree.path)]

    wait_until(lambda: len(jobs()) == 1, "the record is on the disk")
    (job,) = jobs()
    assert [(attempt.worker, attempt.reason) for attempt in job.attempts] == [
        (f"w{lost}", Reason.CONNECTION_LOST.value)
    ]
    assert job.attempts[0].at_s <= job.sent_s and job.ran_again and job.output == b"done\n"
    assert (job.where, job.worker, job.exit_code) == (Where.WORKER, f"w{3 - lost}", 0)

    top = whole.tree.ctl("top", "-once").stdout.decode()
    assert re.search(rf"^w{lost} .*the connection broke .* ago", top.replace("\n    ", " "), re.MULTILINE), top
    with pages(whole.tree) as page:
        assert "the connection broke" in page("/")
        failed = page(f"/worker/w{lost}").partition("Attempts that failed on it")[2]
        assert f'href="/job/{job.id}"' in failed
        assert f'href="/job/{job.id}"' not in page(f"/worker/w{3 - lost}").partition("Attempts that failed on it")[2]

    whole.master.process.kill()
    whole.master.process.wait()
    assert b"no master listens" in whole.tree.ctl("top", "-once").stderr
    with pages(whole.tree) as page:
        assert "No master runs in this tree." in page("/")
        assert json.loads(page("/status.json"))["master"] is None and "termite_master_up 0.0" in page("/metrics")
    unfinished, kept = last_build(whole.tree, "")
    assert (unfinished.is_cut_off, unfinished.ended_s, unfinished.jobs) == (True, kept[-1].home_s, len(kept))
    check_views(whole.tree, unfinished, kept)
    assert b" cut off " in whole.tree.ctl("last").stdout
    wait_until(lambda: not processes_running(nap), "the first run is gone")
    flags = ("-secret", str(whole.secret), "-coordinator", whole.address, "-short", "0", "-job-output", "dropped")
    with daemon(tree.where, "termite-master", *flags, cwd=whole.tree.path):
        assert last_build(whole.tree, "") == (unfinished, kept) and kept[-1].id == job.id, "the next master ends it"
        assert tree.make("-f", "/dev/null").code == 2
        assert last_build(whole.tree)[0].id > unfinished.id
        assert tree.termite("sh", "-c", "echo later").code == 0
        wait_until(lambda: last_build(whole.tree, "")[0].id > unfinished.id, "a new build is on the disk")
        wait_until(lambda: bool(last_build(whole.tree, "")[1]), "its job, too")
        later = last_build(whole.tree, "")[1]
        assert later[0].id > job.id
        assert (later[0].is_output_kept, later[0].output, later[0].output_bytes) == (False, b"", len(b"later\n"))
    ended, _ = last_build(whole.tree, "")
    assert ended.ended_s > 0, "a master that ends ends its builds"
