"""A job sees all results of earlier jobs, and every local change made before it was sent."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.cluster import Cluster, Tree, daemon, new_tree
from tests.e2e.places import Place

# Local edits, after which the next job must see the tree of today. A job has seen the files that
# `prepare` makes.
EDITS = {
    "writes a file": "echo changed >file",
    "writes the same size again": "echo FILE >file",
    "replaces a file": "echo other >t && mv t file",
    "adds a file": "echo x >added",
    "adds a directory": "mkdir -p new/deep && echo x >new/deep/x",
    "removes a file": "rm file",
    "removes a directory": "rm -r dir",
    "moves a directory": "mv dir moved",
    "swaps two directories": "mv dir t && mv dir2 dir && mv t dir2",
    "puts a directory where a file was": "rm file && mkdir file && echo x >file/x",
    "puts a file where a directory was": "rm -r dir && echo x >dir",
    "puts a symlink where a directory was": "mv dir real && ln -s real dir",
    "changes a symlink": "ln -sfn dir2 link",
    "changes a mode": "chmod 755 file",
    "appends": "echo more >>dir/in",
    "truncates": ": >dir/in",
    "moves a directory in from outside": "mv ../outside in",
    "changes much": "for i in $(seq 1 300); do echo $i >dir/f$i; done",
}
LOOK = "find . -printf '%M %p %l\\n' | sort; find . -type f | sort | xargs cat; cat link/in"


@pytest.mark.parametrize("script", EDITS.values(), ids=EDITS.keys())
def test_a_job_sees_what_was_changed_here_before_it(tree: Tree, script: str) -> None:
    tree.mkdir("outside/deep")
    tree.write("outside/deep/x", "x\n")
    prepare = "mkdir -p dir/sub dir2 && echo file >file && echo in >dir/in && echo in2 >dir2/in && ln -s dir link"
    tree.mkdir("work")
    assert tree.plain("sh", "-c", prepare, within="work").code == 0
    assert tree.termite("sh", "-c", LOOK, within="work") == tree.plain("sh", "-c", LOOK, within="work")
    assert tree.plain("sh", "-c", script, within="work").code == 0
    assert tree.termite("sh", "-c", LOOK, within="work") == tree.plain("sh", "-c", LOOK, within="work")


def test_a_hundred_edits_in_a_row_are_each_seen_at_once(tree: Tree) -> None:
    for number in range(100):
        tree.write("counter", f"{number}\n")
        assert tree.termite("cat", "counter").stdout == b"%d\n" % number


def test_a_source_that_an_editor_replaces_all_the_time_stops_no_job(tree: Tree) -> None:
    """A job whose version is gone before it was read is tried again, on the same worker."""
    tree.write("src", "0\n")
    tree.write("going", "")
    script = "mkdir -p sub/$@; cat src >sub/$@/out; sleep 0.02"
    tree.write("Makefile", f"all: $(shell seq -f o%g 1 30)\no%:\n\t@{script}; cp sub/$@/out $@\n")
    edit = "i=0; while [ -e going ]; do i=$((i+1)); echo $i >t; mv t src; sleep 0.02; done"
    editor = tree.where.start(["sh", "-c", edit], tree.path)
    try:
        done = tree.make("-j3", timeout_s=60)
    finally:
        (tree.path / "going").unlink()
        editor.communicate()
    assert done.code == 0, done
    assert b"silent" not in done.stderr
    assert b"sandbox" not in done.stderr
    assert all((tree.path / f"o{number}").read_text().strip().isdigit() for number in range(1, 31))


def test_a_job_was_shown_what_a_symlink_has_replaced_before_it_was_read(tree: Tree) -> None:
    """A local command follows the symlink. The job runs again, and then does so as well."""
    for name in ("x.h", "d/f", "top/d/f"):
        tree.write(name, f"content of {name}\n")
    script = "ls -lR >/dev/null; echo ready; read line; cat x.h d/f top/d/f; ls top/d; cat x.h 2>/dev/null | wc -c"
    job = tree.where.start([tree.where.termite("termite"), "sh", "-c", script], tree.path, stdin=-1)
    assert job.stdout is not None
    assert job.stdout.readline() == b"ready\n"
    swap = "mv x.h real.h; ln -s real.h x.h; mv d e; ln -s e d; mv top real; ln -s real top"
    assert tree.plain("sh", "-c", swap).code == 0
    output, errors = job.communicate(b"line\n", timeout=60)
    local = tree.plain("sh", "-c", script.partition("read line; ")[2])
    assert (job.returncode, output, errors) == (0, local.stdout, b"")
    assert local.stdout.startswith(b"content of x.h\n")


def test_what_is_written_below_a_closed_directory_is_seen_when_it_is_open_again(tree: Tree) -> None:
    """A shell that stands in the directory writes, and meanwhile another job begins."""
    tree.write("a/b/f.h", "#define V 1\n")
    looks = ("sh", "-c", "cat a/b/f.h; ls a/b")
    assert tree.termite(*looks) == tree.plain(*looks)
    job = f"(cd {tree.path}; {tree.where.word('termite')} sh -c 'exit 3')"
    writes = "echo '#define V 22222' >f.h; echo new >new.h"
    script = f"cd a/b; chmod 0 ../../a; {writes}; {job}; code=$?; chmod 755 {tree.path}/a; exit $code"
    assert tree.plain("sh", "-c", script).code == 3
    assert tree.termite(*looks) == tree.plain(*looks)


def test_a_file_that_was_missing_is_found_after_it_was_made(tree: Tree) -> None:
    assert tree.termite("cat", "late.h").code == 1
    tree.write("late.h", "now\n")
    assert tree.termite("cat", "late.h").stdout == b"now\n"


def test_hard_links_that_one_job_made_are_hard_links_for_the_next(tree: Tree) -> None:
    assert tree.termite("sh", "-c", "mkdir d; echo x >a; ln a b; ln a d/c").code == 0
    looks = "stat -c '%h %n' a b d/c; stat -c %i a b d/c | sort -u | wc -l; tar cf - a b d | tar tvf - | cut -c 1-10"
    assert tree.termite("sh", "-c", looks) == tree.plain("sh", "-c", looks)
    assert tree.termite("rm", "b").code == 0
    assert tree.termite("sh", "-c", looks) == tree.plain("sh", "-c", looks)


def test_a_result_is_seen_by_the_next_job_and_by_local_commands(tree: Tree) -> None:
    for number in range(20):
        tree.termite("sh", "-c", f"echo {number} >result")
        assert tree.plain("cat", "result").stdout == b"%d\n" % number
        assert tree.termite("cat", "result").stdout == b"%d\n" % number


def test_a_change_outside_the_tree_is_seen_at_once(user: Place) -> None:
    """A header or tool that is installed between two commands is seen by the next one."""
    tree, outside = new_tree(user), new_tree(user, "settled")
    version = outside.write("version", "1\n")
    looks = ("sh", "-c", f"cd {outside.path}; ls -R; cat version include/*.h include/sub/* 2>&1")

    def steps() -> Iterator[str]:
        yield "ls"
        for number in range(12):  # of one size, within one tick of the clock
            yield f"echo {number % 10} >version"
        yield "mkdir include; echo 1 >include/a.h"
        yield "mkdir include/sub; echo 2 >include/sub/b.h; echo 3 >include/a.h"
        yield "echo 4 >include/sub/b.h"
        yield "rm -r include; echo 5 >include"
        yield "rm include; mkdir -p include/sub; echo 6 >include/c.h; echo 7 >include/sub/b.h"
        yield "mv include/c.h include/a.h; rm version; ln -s include/a.h version"

    # Exported, because all of this may lie in a home that others cannot enter.
    with daemon(user, "termite-master", "-short", "0", "-embedded", "-export", str(outside.path), cwd=tree.path):
        assert tree.termite("cat", str(version)).stdout == b"1\n"
        for number, step in enumerate(steps(), 2):
            assert outside.plain("sh", "-c", step).code == 0
            assert tree.termite(*looks) == tree.plain(*looks), step
            assert tree.jobs() == number


def test_results_of_one_worker_are_seen_on_the_other(two_workers: Cluster) -> None:
    """Jobs that run at once are spread; each reads what all of the round before wrote."""
    tree = two_workers.tree.subtree("spread")
    termite = tree.where.word("termite")
    script = f"""
        echo 0 >sum
        for round in $(seq 1 8); do
            for part in 1 2 3 4; do
                {termite} sh -c "sleep 0.05; cat sum >part$part; echo $round.$part >>part$part" &
            done
            wait
            {termite} sh -c 'cat part1 part2 part3 part4 | sort | uniq >sum'
        done
        cat sum"""
    done = tree.plain("bash", "-c", script)
    expected = sorted(["0", *(f"{n}.{part}" for n in range(1, 9) for part in range(1, 5))])
    assert done.stdout.decode().split() == expected, done
    worked = two_workers.jobs_by_worker()
    assert len(worked) == 2, worked
    assert all(worked.values()), worked


def test_a_running_job_keeps_the_tree_it_started_with(two_workers: Cluster) -> None:
    tree = two_workers.tree.subtree("snapshot")
    for name in ("a", "b/c"):
        tree.write(name, "old\n")
    script = "cat a b/c; echo ready; read go; cat a b/c; ls b"
    process = tree.where.start([tree.where.termite("termite"), "sh", "-c", script], tree.path, stdin=-1)
    assert process.stdout is not None
    assert [process.stdout.readline() for _ in range(3)] == [b"old\n", b"old\n", b"ready\n"]
    other = tree.termite("sh", "-c", "rm a; echo new >a; rm -r b; mkdir b; echo new >b/other")
    assert other.code == 0, other
    rest, stderr = process.communicate(b"go\n", timeout=30)
    assert (rest, stderr) == (b"old\nold\nc\n", b"")
    assert tree.termite("sh", "-c", "cat a; ls b").stdout == b"new\nother\n"


def test_two_jobs_that_write_one_file_at_once_are_named(two_workers: Cluster) -> None:
    tree = two_workers.tree.subtree("conflict")
    before = two_workers.tree.status()["conflicts"]
    termite = tree.where.termite("termite")
    tree.write("both", "old\n")  # it is made anew: a file that is written in place is compared first
    script = "echo slow >new; mv new both; echo on; read go"
    slow = tree.where.start([termite, "sh", "-c", script], tree.path, stdin=-1)
    assert slow.stdout is not None
    assert slow.stdout.readline() == b"on\n"
    assert tree.termite("sh", "-c", "echo quick >fresh; mv fresh both").code == 0
    slow.communicate(b"go\n", timeout=30)
    assert Path(tree.path / "both").read_text() == "slow\n"
    assert two_workers.tree.status()["conflicts"] == before + 1
