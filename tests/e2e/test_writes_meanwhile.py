"""Test that nothing is lost which others write to a file while a remote job writes to it, too."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.cluster import Cluster, Tree, embedded, new_tree
from tests.e2e.places import Outcome, Place
from tests.e2e.waiting import wait_until

MANY = 40
APPENDING = f"""T := $(addprefix t,$(shell seq {MANY}))
all: $(T)
$(T): ; echo $@ >>log; echo same >>same; touch $@
"""
COUNTING = f"""T := $(addprefix t,$(shell seq {MANY}))
all: $(T)
$(T): ; flock lock sh -c 'n=$$(cat count 2>/dev/null || echo 0); echo $$((n+1)) >count; echo $@ >>log'
"""

TARGETS = "T := $(addprefix t,$(shell seq 8))\nall: $(T)\n"
BARRED = "$(T): ; touch empty-$@; sleep 0.2; if {link} 2>/dev/null; then echo $@ >>winners; fi\n"


def lines(path: Path) -> list[str]:
    return sorted(path.read_text().splitlines())


def names() -> list[str]:
    return sorted(f"t{n}" for n in range(1, MANY + 1))


@pytest.mark.parametrize("is_there", [True, False])
def test_the_lines_that_parallel_recipes_append_are_all_there(tree: Tree, is_there: bool) -> None:
    tree.write("Makefile", APPENDING)
    if is_there:
        tree.write("log", "first\n")
        tree.write("same", "first\n")
    done = tree.make("-s", "-j8")
    assert done.code == 0, done
    first = ["first"] if is_there else []
    assert lines(tree.path / "log") == sorted(names() + first)
    assert lines(tree.path / "same") == sorted(["same"] * MANY + first)
    assert tree.make("-q").code == 0, "make has nothing left to do"


@pytest.mark.parametrize("is_there", [True, False])
def test_a_counter_under_a_lock_counts_every_recipe(tree: Tree, is_there: bool) -> None:
    tree.write("Makefile", COUNTING)
    if is_there:
        tree.write("count", "100\n")
    done = tree.make("-s", "-j8")
    assert done.code == 0, done
    assert (tree.path / "count").read_text() == f"{MANY + 100 * is_there}\n"
    assert lines(tree.path / "log") == names()


@pytest.mark.parametrize("link", ["ln -s $@ lock", "ln empty-$@ lock"], ids=["symbolic", "hard"])
def test_one_of_many_recipes_makes_a_link_that_is_a_lock(tree: Tree, link: str) -> None:
    tree.write("Makefile", f"{TARGETS}{BARRED.format(link=link)}")
    done = tree.make("-s", "-j8")
    assert done.code == 0, done
    assert len(lines(tree.path / "winners")) == 1


class Slow:
    """A remote job that waits between its beginning and its end until `go` is called.

    Its input is kept, so that a second run does not wait.
    """

    def __init__(self, tree: Tree, end: str, begin: str = ":", env: dict[str, str] | None = None) -> None:
        script = f"{begin}; echo on >&2; read go; {end}"
        argv = [tree.where.termite("termite"), "sh", "-c", script]
        self.process = tree.where.start(argv, tree.path, stdin=-1, env=env)
        assert self.process.stderr is not None
        assert self.process.stderr.readline() == b"on\n"

    def go(self, words: bytes = b"go\n") -> tuple[int, str, str]:
        """Let the job end. Return its exit code, stdout and the rest of stderr."""
        stdout, stderr = self.process.communicate(words, timeout=60)
        return self.process.returncode, stdout.decode(), stderr.decode()


def local(tree: Tree, script: str) -> None:
    assert tree.plain("sh", "-c", script).code == 0


def retried(tree: Tree) -> int:
    return int(tree.status()["retries"].get("conflict", 0))


def test_a_local_append_during_a_remote_one_stays(tree: Tree) -> None:
    tree.write("log", "first\n")
    slow = Slow(tree, "echo remote >>log", begin="cat log")
    for n in range(5):
        local(tree, f"echo local {n} >>log")
    assert slow.go() == (0, "first\n", "")
    assert (tree.path / "log").read_text() == "first\n" + "".join(f"local {n}\n" for n in range(5)) + "remote\n"


def test_a_large_file_gets_both_tails(tree: Tree) -> None:
    first = b"0123456789abcde\n" * 200_000
    tree.write("log", first)
    slow = Slow(tree, "cat part >>log", begin="head -c 100000 log >part")
    local(tree, "echo local >>log")
    assert slow.go() == (0, "", "")
    assert (tree.path / "log").read_bytes() == first + b"local\n" + first[:100_000]


def test_an_edit_during_a_job_that_writes_in_place_is_not_lost(tree: Tree) -> None:
    tree.write("text", "one\ntwo\n")
    before = retried(tree)
    slow = Slow(tree, "sed s/one/1/ text >new; cat new >text; rm new; echo end", begin="cat text >seen")
    tree.write("text", "one\ntwo\nthree of the editor\n")
    assert slow.go() == (0, "end\n", "")
    assert (tree.path / "text").read_text() == "1\ntwo\nthree of the editor\n"
    assert retried(tree) == before + 1


def test_a_job_that_has_printed_reads_a_file_that_was_replaced_meanwhile(tree: Tree) -> None:
    tree.write("text", b"old\n" * 100_000)
    slow = Slow(tree, "head -n1 text 2>error || echo none", begin="test -e text")
    tree.write("text", b"new\n" * 100_001)
    assert slow.go() == (0, "new\n", "")
    assert (tree.path / "error").read_bytes() == b""


def test_a_moved_file_takes_what_was_appended_with_it(tree: Tree) -> None:
    tree.write("log", "first\n")
    slow = Slow(tree, "mv log log.1", begin="cat log >seen")
    local(tree, "echo local >>log")
    assert slow.go()[0] == 0
    assert not (tree.path / "log").exists()
    assert (tree.path / "log.1").read_text() == "first\nlocal\n"


def test_a_file_that_was_removed_stays_removed(tree: Tree) -> None:
    tree.write("f", "seen\n")
    slow = Slow(tree, "rm f", begin="cat f >seen")
    local(tree, "echo more >>f")
    assert slow.go()[0] == 0
    assert not (tree.path / "f").exists()


def test_a_file_made_anew_by_two_jobs_is_the_last_ones_and_is_named(tree: Tree) -> None:
    tree.write("f", "old\n")
    slow = Slow(tree, "echo slow >new; mv new f", begin="cat f >seen")
    assert tree.termite("sh", "-c", "echo quick >fresh; mv fresh f").code == 0
    code, _, stderr = slow.go()
    assert code == 0
    assert f"2 jobs wrote {tree.path}/f at the same time" in stderr
    assert (tree.path / "f").read_text() == "slow\n"


def test_a_second_run_may_read_more_of_its_input(tree: Tree) -> None:
    tree.write("f", "old\n")
    before = retried(tree)
    end = "if grep -q local f; then read more; fi; cat f >new; (cat new; echo got $more) >f; rm new"
    slow = Slow(tree, end, begin="cat f >seen")
    tree.write("f", "a local edit\n")
    assert slow.process.stdin is not None
    slow.process.stdin.write(b"go\n")
    slow.process.stdin.flush()
    wait_until(lambda: retried(tree) == before + 1, "the second run")
    assert slow.go(b"more\n")[0] == 0
    assert (tree.path / "f").read_text() == "a local edit\ngot more\n"


class Editor:
    """A local program that writes another text into a file again and again, until `stop`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._is_over = threading.Event()
        self.texts = 0
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._is_over.wait(0.02):
            self.texts += 1
            self._path.write_text(f"text {self.texts}\n")

    def stop(self) -> None:
        self._is_over.set()
        self._thread.join()


def test_a_job_that_is_always_too_late_runs_here_at_last(tree: Tree) -> None:
    path = tree.write("f", "text 0\n")
    editor = Editor(path)
    try:
        done = tree.termite("sh", "-c", "cat f >seen; sleep 0.3; echo end; echo changed >f")
        assert done.code == 0, done
        assert done.stdout == b"end\n"
        assert b"other commands changed the same files" in done.stderr
        assert b"1 command runs on this machine" in done.stderr
        never = {"TERMITE_LOCAL": "never"}
        refused = tree.termite("sh", "-c", "cat f >seen2; sleep 0.3; echo changed again >f", env=never)
        assert refused.code == 103, refused
        assert not (tree.path / "seen2").exists()
    finally:
        editor.stop()


def test_a_result_goes_behind_a_program_that_keeps_the_file_open(tree: Tree) -> None:
    path = tree.write("log", "first\n")
    with path.open("a") as log:
        done = tree.termite("sh", "-c", "echo remote >>log")
        assert done.code == 0, done
        log.write("of the program\n")
    assert path.read_text() == "first\nremote\nof the program\n"


def test_recipes_on_two_workers_lose_nothing(two_workers: Cluster) -> None:
    tree = two_workers.tree.subtree("counting")
    tree.write("Makefile", COUNTING)
    done = tree.make("-s", "-j8")
    assert done.code == 0, done
    assert (tree.path / "count").read_text() == f"{MANY}\n"
    assert lines(tree.path / "log") == names()
    assert len([count for count in two_workers.jobs_by_worker().values() if count]) == 2


@pytest.fixture
def ruled(user: Place) -> Iterator[Tree]:
    """Yield a tree in which commands that name the word `network` have it, and most are short."""
    tree = new_tree(user)
    tree.write(".termite-localrc", '[{"Regexp": "network", "Network": true}]')
    with embedded(tree, short="5000") as running:
        yield running


def meet(tree: Tree, script: str) -> Outcome:
    """Run a remote script, and append to `log` while it runs. The worker knows `log` before."""
    assert tree.termite("cat", "log").code == 0
    process = tree.where.start([tree.where.termite("termite"), "sh", "-c", script], tree.path)
    wait_until(lambda: tree.status()["jobs"]["phases"] == {"running remotely": 1}, "the job runs")
    local(tree, "echo local >>log")
    stdout, stderr = process.communicate(timeout=60)
    return Outcome(process.returncode, stdout, stderr)


def test_a_command_that_met_others_is_not_taken_for_short(ruled: Tree) -> None:
    ruled.write("log", "first\n")
    met, alone = "sleep 1; echo met >>log", "sleep 0.1; echo alone >>log"
    assert meet(ruled, met).code == 0
    assert ruled.termite("sh", "-c", alone).code == 0
    before = ruled.jobs("short")
    assert ruled.termite("sh", "-c", met).code == 0
    assert ruled.jobs("short") == before
    assert ruled.termite("sh", "-c", alone).code == 0
    assert ruled.jobs("short") == before + 1
    assert (ruled.path / "log").read_text() == "first\nlocal\nmet\nalone\nmet\nalone\n"


def test_a_command_with_the_network_does_not_run_again(ruled: Tree) -> None:
    ruled.write("log", "first\n")
    done = meet(ruled, "sleep 1; wc -l log >network; cat network >log")
    assert done.code == 101, done
    assert b"other commands changed the same files at the same time: " + bytes(ruled.path / "log") in done.stderr
    assert b"may have used the network" in done.stderr
    assert (ruled.path / "log").read_text() == "first\nlocal\n"
    assert not (ruled.path / "network").exists()
