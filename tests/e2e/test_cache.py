"""Use results of earlier commands again with real processes: never wrong, also without a worker.

The commands of a fixture run twice, two seconds apart, which proves them. Each test has a directory
of its own. The last one has no worker any more.
"""

import itertools
import json
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.cluster import Cluster, Tree, cluster, new_tree
from tests.e2e.conftest import USERS, MakePlace
from tests.e2e.places import Outcome
from tests.e2e.snapshot import Entry, snapshot, times
from tests.e2e.waiting import wait_until

APART_S = 2.1  # more than the time between two runs that prove something
FIRST_INCLUDES = "for d in inc inc2; do if [ -e $d/a.h ]; then cat $d/a.h; break; fi; done >out/chosen"
# By name: each of them gives the same result every time.
COMMANDS = {
    "compile": ("gcc", "-O1", "-Iinc", "-Iinc2", "-c", "src/a.c", "-o", "out/a.o"),
    "streams": (
        "sh",
        "-c",
        "echo one; echo two >&2; echo three; cat src/a.c >out/copy; chmod 640 out/copy; ln -s copy out/link",
    ),
    "choose": ("sh", "-c", FIRST_INCLUDES),
    "variable": ("sh", "-c", "echo $WORD >out/word; mkdir -p out/deep/er; cat src/a.c >out/deep/er/a"),
    "script": ("./gen.sh",),
    "append": ("sh", "-c", "cat src/a.c >>log"),
    "remove": ("sh", "-c", "rm -f trash; cat inc2/a.h >out/kept"),
    "large": ("sh", "-c", "head -c 3000000 /dev/zero >out/large; cat src/a.c >>out/large; cat out/large"),
}
PROVED_AGAIN = ("compile", "streams", "large")  # after the index was damaged
FAILING = ("sh", "-c", "echo x; echo y >out/failed; exit 3")
RANDOM = {
    "seconds": "date +%s >r",
    "script of seconds": "cat src/a.c >r; sh -c 'date +%N' >>r",
    "uptime": "cat /proc/uptime >r",
    "random": "head -c 8 /dev/urandom >r",
    "uuid": "cat /proc/sys/kernel/random/uuid >r",
    "temporary name": "mktemp -u >r",
    "hash order": "python3 -c 'print(hash(str()+chr(97)))' >r",
}
MAKEFILE = """
all: last
first: src/a.c
	cat $< >$@
middle: first
	cat $< $< >$@
last: middle
	cat $< first >$@
"""
NINJA = """
rule gen
  command = [ "$$(cat $in)" = "$$(cat $out 2>/dev/null)" ] || cat $in >$out
  restat = 1
rule use
  command = cat $in >$out
build gen.h: gen src/a.c
build used: use gen.h
"""


@pytest.fixture(scope="module", params=USERS)
def whole(request: pytest.FixtureRequest, make_place: MakePlace) -> Iterator[Cluster]:
    with (
        make_place(request.param) as where,
        cluster(new_tree(where), [where], master_flags=("-cache", "on")) as whole,
    ):
        whole.wait_for_workers(1)
        yield whole


def fill(tree: Tree, name: str) -> Tree:
    """Make a directory with sources."""
    made = tree.subtree(name)
    made.write("src/a.c", '#include "a.h"\nint a(void) { return A; }\n')
    made.write("inc2/a.h", "#define A 1\n")
    made.write("gen.sh", "#!/bin/sh\ncat inc2/a.h inc2/a.h >out/gen\n", 0o755)
    made.write("Makefile", MAKEFILE)
    made.write("build.ninja", NINJA)
    made.mkdir("inc")
    made.mkdir("out")
    return made


def clean(tree: Tree) -> None:
    """Remove what the commands make, and make again what they change."""
    for path in (tree.path / "out").iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    tree.write("log", "begun\n")
    tree.write("trash", "trash\n")
    os.utime(tree.path / "trash", (1, 1))  # rm asks for it


def run(tree: Tree, name: str, **env: str) -> Outcome:
    return tree.termite(*COMMANDS[name], env={"WORD": "word", **env})


def run_all(tree: Tree) -> dict[str, tuple[Outcome, dict[bytes, Entry]]]:
    """Run each command in a clean tree, and return what it prints and leaves."""
    found = {}
    for name in COMMANDS:
        clean(tree)
        found[name] = run(tree, name), snapshot(tree.path)
    return found


def counts(tree: Tree) -> tuple[int, int]:
    """Return how many jobs ran on workers, and how many results were used again."""
    jobs = tree.status()["jobs"]
    return jobs["remote"], jobs["cached"]


def records(tree: Tree) -> list[dict[str, Any]]:
    """Return the records of all jobs, as soon as they are written."""
    done = sum(counts(tree))
    found: list[dict[str, Any]] = []

    def is_written() -> bool:
        listed = tree.ctl("jobs", "--all", "--json").stdout.splitlines()
        found[:] = sorted((json.loads(line) for line in listed), key=lambda job: int(job["id"]))
        return len(found) >= done

    wait_until(is_written, "the records are written", lambda: str(found))
    return found


def misses(tree: Tree) -> str:
    """Return why jobs ran, the last one first."""
    ran = [job for job in records(tree) if job["where"] == "worker"]
    return "; ".join(f"{job['id']} {job['text'][:30]}: {job['miss']}" for job in reversed(ran))


@pytest.fixture(scope="module")
def proved(whole: Cluster) -> dict[str, tuple[Outcome, dict[bytes, Entry]]]:
    """Run everything twice, and return what the commands of COMMANDS have done."""
    tree, random = fill(whole.tree, "commands"), fill(whole.tree, "random")
    made, restat = fill(whole.tree, "made"), fill(whole.tree, "restat")
    found = {}
    for apart_s in (APART_S, 0):
        found = run_all(tree)
        assert tree.termite(*FAILING).code == 3
        for text in RANDOM.values():
            assert random.termite("sh", "-c", text).code == 0
        for name in ("first", "middle", "last"):
            (made.path / name).unlink(missing_ok=True)
        assert made.make("-j2").code == 0
        os.utime(restat.path / "src/a.c")
        assert restat.where.run([restat.where.termite("termite-ninja")], restat.path).code == 0
        time.sleep(apart_s)
    return found


def test_the_third_run_needs_no_worker_and_does_the_same(
    whole: Cluster, proved: dict[str, tuple[Outcome, dict[bytes, Entry]]]
) -> None:
    tree = whole.tree.subtree("commands")
    remote, cached = counts(tree)
    assert run_all(tree) == proved
    assert counts(tree) == (remote, cached + len(COMMANDS)), misses(tree)
    last = records(tree)[-1]
    assert (last["where"], last["cause"]["kind"], last["worker"]) == ("cache", "cached", "")
    executed = int(last["cause"]["detail"].split()[1])
    assert [job["where"] for job in records(tree) if job["id"] == executed] == ["worker"]
    plain = fill(whole.tree, "plain")
    for name, (done, left) in proved.items():
        clean(plain)
        assert (name, plain.plain(*COMMANDS[name], env={"WORD": "word"})) == (name, done)
        assert snapshot(plain.path) == left, name


def test_outputs_that_are_there_with_other_contents_are_replaced(
    whole: Cluster, proved: dict[str, tuple[Outcome, dict[bytes, Entry]]]
) -> None:
    tree = whole.tree.subtree("commands")
    remote, cached = counts(tree)
    clean(tree)
    tree.write("out/copy", "old", 0o640)
    tree.write("out/a.o", "old")
    for name in ("streams", "compile"):
        assert run(tree, name).code == 0
    left = snapshot(tree.path)
    assert [left[path] for path in (b"out/copy", b"out/link")] == [
        proved["streams"][1][path] for path in (b"out/copy", b"out/link")
    ]
    assert left[b"out/a.o"] == proved["compile"][1][b"out/a.o"]
    assert counts(tree) == (remote, cached + 2), misses(tree)


def link(tree: Tree) -> None:
    (tree.path / "inc").rmdir()
    (tree.path / "inc").symlink_to("inc2")


CHANGES: dict[str, tuple[str, Callable[[Tree], object]]] = {
    "content": ("compile", lambda tree: tree.write("src/a.c", "int b(void) { return 2; }\n")),
    "header": ("compile", lambda tree: tree.write("inc2/a.h", "#define A 2\n")),
    "shadow": ("compile", lambda tree: tree.write("inc/a.h", "#define A 3\n")),
    "shadow of a test": ("choose", lambda tree: tree.write("inc/a.h", "#define A 3\n")),
    "removal": ("choose", lambda tree: (tree.path / "inc2/a.h").unlink()),
    "mode of an output": ("streams", lambda tree: tree.write("out/copy", "old", 0o600)),
    "mode of a program": ("script", lambda tree: (tree.path / "gen.sh").chmod(0o644)),
    "content of a script": ("script", lambda tree: tree.write("gen.sh", "#!/bin/sh\necho x >out/gen\n", 0o755)),
    "old content": ("append", lambda tree: tree.write("log", "other\n")),
    "symlink": ("choose", link),
}


def test_whatever_changes_what_a_command_used_is_a_miss_and_gives_the_right_bits(
    whole: Cluster, proved: dict[str, tuple[Outcome, dict[bytes, Entry]]]
) -> None:
    for number, (what, (name, change)) in enumerate(CHANGES.items()):
        tree = whole.tree.subtree("commands")
        plain = fill(whole.tree, f"changed{number}")
        for one in (tree, plain):
            clean(one)
            change(one)
            for path in one.path.rglob("*"):
                one.own(path)
        _, cached = counts(tree)
        done = run(tree, name)
        expected = plain.plain(*COMMANDS[name], env={"WORD": "word"})
        assert (what, done.code, done.stdout) == (what, expected.code, expected.stdout)
        assert snapshot(tree.path) == snapshot(plain.path), what
        assert (what, counts(tree)[1]) == (what, cached)
        shutil.rmtree(tree.path / "inc") if not (tree.path / "inc").is_symlink() else (tree.path / "inc").unlink()
        fill(whole.tree, "commands")
    remote, cached = counts(whole.tree)
    clean(tree)
    assert run(tree, "variable", WORD="other").code == 0
    assert (tree.path / "out/word").read_text() == "other\n"
    assert counts(tree) == (remote + 1, cached)
    assert run(tree, "variable", WINDOWID="7", SSH_TTY="x").code == 0
    assert (tree.path / "out/word").read_text() == "word\n"


def test_what_is_not_the_same_each_time_or_fails_is_never_used_again(
    whole: Cluster, proved: dict[str, tuple[Outcome, dict[bytes, Entry]]]
) -> None:
    tree = whole.tree.subtree("random")
    remote, cached = counts(tree)
    for text in RANDOM.values():
        assert tree.termite("sh", "-c", text).code == 0
    failing = whole.tree.subtree("commands").termite(*FAILING)
    assert (failing.code, failing.stdout) == (3, b"x\n")
    assert counts(tree) == (remote + len(RANDOM) + 1, cached)


def test_make_finds_everything_up_to_date_after_hits(
    whole: Cluster, proved: dict[str, tuple[Outcome, dict[bytes, Entry]]]
) -> None:
    tree = whole.tree.subtree("made")
    for name in ("first", "middle", "last"):
        (tree.path / name).unlink()
    remote, cached = counts(tree)
    built = tree.make("-j2", env={"TERMITE_VERBOSE": "1"})
    assert built.code == 0 and b"results of earlier runs: 3" in built.stderr, built
    assert counts(tree) == (remote, cached + 3)
    assert (tree.path / "last").read_bytes() == (tree.path / "src/a.c").read_bytes() * 3
    when = times(tree.path)
    assert when[b"src/a.c"] <= when[b"first"] <= when[b"middle"] <= when[b"last"]
    assert b"up to date" in tree.plain("make", "-n", "all").stdout or b"Nothing to be done" in tree.plain("make").stdout


def test_restat_of_ninja_holds_after_a_hit_that_writes_nothing(
    whole: Cluster, proved: dict[str, tuple[Outcome, dict[bytes, Entry]]]
) -> None:
    tree = whole.tree.subtree("restat")
    ninja = [tree.where.termite("termite-ninja")]
    for expected in ((1, 0), (0, 1)):  # the second run in which nothing was written proves it
        before = times(tree.path)
        remote, cached = counts(tree)
        os.utime(tree.path / "src/a.c")
        assert tree.where.run(ninja, tree.path).code == 0
        after = times(tree.path)
        assert (after[b"gen.h"], after[b"used"]) == (before[b"gen.h"], before[b"used"])
        assert counts(tree) == (remote + expected[0], cached + expected[1])
        if expected == (1, 0):
            time.sleep(APART_S)


def test_a_known_compiler_needs_one_run_unless_the_source_asks_for_the_time(
    whole: Cluster, proved: dict[str, tuple[Outcome, dict[bytes, Entry]]]
) -> None:
    tree = fill(whole.tree, "known")
    tree.write("src/time.c", "const char *when(void) { return __DATE__ __TIME__; }\n")
    remote, cached = counts(tree)
    for name, expected in (("a", (1, 1)), ("time", (3, 1)), ("a", (3, 3))):
        for _ in range(2):
            done = tree.termite("gcc", "-O1", "-Iinc", "-Iinc2", "-c", f"src/{name}.c", "-o", f"out/{name}.o")
            assert done.code == 0
            time.sleep(1.1 if cached == counts(tree)[1] else 0)  # to another second
        assert counts(tree) == (remote + expected[0], cached + expected[1]), misses(tree)
    shown = tree.plain("strings", "out/time.o").stdout
    assert time.strftime("%Y").encode() in shown


def test_a_password_that_differs_from_the_last_run_is_in_no_record(whole: Cluster) -> None:
    tree, passwords = fill(whole.tree, "passwords"), itertools.count(11111111)

    def run_with_another() -> dict[str, Any]:
        assert tree.termite("sh", "gen.sh", "--password", f"hunter{next(passwords)}").code == 0
        return records(tree)[-1]

    wait_until(lambda: run_with_another()["miss"] == "argument", "the last run is stored")
    last = records(tree)[-1]
    assert last["missed"] == {"kind": "word", "name": "***", "old": "***", "new": "***"}
    said = tree.ctl("log", str(last["id"])).stdout + tree.ctl("jobs", "--all", "--json").stdout
    assert b"The command has the word *** in place of ***" in said and b"hunter" not in said
    state = tree.where.base / "home/.local/state/termite"
    written = b"".join(file.read_bytes() for file in state.rglob("*") if file.is_file())
    assert b"sh gen.sh --password ***" in written and b"hunter1" not in written, "records and logs"


def test_a_damaged_store_costs_misses_and_no_wrong_bits(
    whole: Cluster, proved: dict[str, tuple[Outcome, dict[bytes, Entry]]]
) -> None:
    tree = whole.tree.subtree("commands")
    results = store_of(whole)
    for blob in (results / "cas").glob("??/*"):
        content = blob.read_bytes()
        blob.chmod(0o600)
        blob.write_bytes(bytes([content[0] ^ 1]) + content[1:] if content else b"x")
    remote, cached = counts(tree)
    for name in PROVED_AGAIN:
        clean(tree)
        assert (run(tree, name), snapshot(tree.path)) == proved[name]
    assert counts(tree) == (remote + len(PROVED_AGAIN), cached)
    for index in results.glob("index-*.db"):
        with sqlite3.connect(index) as database:
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        database.close()
        with index.open("r+b") as file:
            file.write(b"damaged" * 4000)
    for apart_s in (APART_S, 0):  # these runs prove the results of the new index, for the next test
        for name in PROVED_AGAIN:
            clean(tree)
            assert (run(tree, name), snapshot(tree.path)) == proved[name]
        time.sleep(apart_s)
    assert whole.master.process.poll() is None


def test_without_any_worker_results_are_still_used(
    whole: Cluster, proved: dict[str, tuple[Outcome, dict[bytes, Entry]]]
) -> None:
    tree = whole.tree.subtree("commands")
    for worker in whole.workers:
        worker.stop()
    whole.wait_for_workers(0)
    _, cached = counts(tree)
    for name in PROVED_AGAIN:
        clean(tree)
        assert (run(tree, name, TERMITE_LOCAL="never"), snapshot(tree.path)) == proved[name]
    assert counts(tree)[1] == cached + len(PROVED_AGAIN)
    assert run(tree, "variable", WORD="new", TERMITE_LOCAL="never").code == 103


def store_of(whole: Cluster) -> Path:
    """Return the directory of the results of the cluster's user."""
    (found,) = whole.tree.where.base.rglob(".cache/termite/results")
    return found
