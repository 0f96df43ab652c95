"""Short commands run on this machine while a core is idle, and make the same files."""

import os
from collections.abc import Iterator

import pytest

from tests.e2e.cluster import Tree, cluster, embedded, new_tree
from tests.e2e.conftest import MakePlace

RUNS = 12
MAKEFILE = """
all: $(foreach n,1 2 3 4 5 6 7 8,f$(n).o) listed
PROBED := $(shell gcc -E -x c /dev/null >/dev/null 2>&1 && echo yes)
%.o: %.c
\tgcc -c -o $@ $<
listed: f1.o
\tnm f1.o >$@; echo '$(PROBED)' >>$@
"""


@pytest.fixture(scope="module")
def tree(make_place: MakePlace) -> Iterator[Tree]:
    with make_place("ordinary") as where, embedded(new_tree(where), short="auto") as tree:
        yield tree


def shorts(tree: Tree) -> int:
    return tree.jobs("short")


def test_it_is_remote_first_and_then_here_and_why_says_so(tree: Tree) -> None:
    command = ("sh", "-c", "sort <names >sorted")
    tree.write("names", "b\na\n")
    assert b"remote" in tree.ctl("why", *command).stdout
    remote, short = tree.jobs(), shorts(tree)
    for _ in range(RUNS):
        assert tree.termite(*command).code == 0
        assert (tree.path / "sorted").read_text() == "a\nb\n"
        assert tree.termite("cat", "sorted").stdout == b"a\nb\n", "what ran here is seen there"
    assert tree.jobs() > remote and shorts(tree) > short
    assert b"while a core is free" in tree.ctl("why", *command).stdout
    status = tree.status()
    assert status["short_below_ms"] > 0
    assert not status["fallbacks"]


def test_a_build_of_short_commands_makes_the_same_files_wherever_they_run(tree: Tree) -> None:
    sub = tree.subtree("sources")
    sub.write("Makefile", MAKEFILE)
    for number in range(1, 9):
        sub.write(f"f{number}.c", f"int f{number}(int x) {{ return x * {number}; }}\n")
    seen = []
    for builder in (["termite-make"], ["termite-make"], ["termite-make"], ["make"]):
        word = sub.where.termite(builder[0]) if builder[0] != "make" else "make"
        before = shorts(tree)
        done = sub.where.run([word, "-j2"], sub.path)
        assert done.code == 0, done
        seen.append({name: (sub.path / name).read_bytes() for name in sorted(os.listdir(sub.path))})
        here = shorts(tree) - before
        for name in seen[-1]:
            if name.endswith(".o") or name == "listed":
                (sub.path / name).unlink()
    assert seen[0] == seen[1] == seen[2] == seen[3]
    assert here == 0, "a plain build has nothing to do with the master"
    assert shorts(tree) > 0


def test_a_short_command_ends_as_it_would_alone(tree: Tree) -> None:
    script = 'read line <input; test "$line" = signal && kill -9 $$; exit "$line"'
    tree.write("input", "0\n")
    for _ in range(RUNS):
        assert tree.termite("sh", "-c", script).code == 0
    before = shorts(tree)
    tree.write("input", "7\n")
    assert tree.termite("sh", "-c", script).code == 7
    tree.write("input", "signal\n")
    assert tree.termite("sh", "-c", script).code == -9
    assert shorts(tree) == before + 2


def test_a_small_file_that_a_local_command_has_written_is_with_the_next_job_already(tree: Tree) -> None:
    tree.write(".termite-localrc", '[{"Regexp": "echo written", "Local": true}, {"Regexp": "cat news"}]')
    try:
        for text in ("at first", "again", "a third time"):
            assert tree.termite("sh", "-c", f"echo written {text} >news").code == 0
            before = tree.status()
            assert tree.termite("cat", "news").stdout == f"written {text}\n".encode()
            after = tree.status()
            assert after["jobs"]["remote"] == before["jobs"]["remote"] + 1
        assert after["messages"]["GetFile"] == before["messages"]["GetFile"]
        assert after["fuse_requests"] - before["fuse_requests"] < 12, "no delta: a real layer has it"
    finally:
        (tree.path / ".termite-localrc").unlink()


def test_a_rule_without_local_keeps_them_on_the_workers(tree: Tree) -> None:
    for _ in range(RUNS):
        assert tree.termite("sh", "-c", "echo pinned >pinned").code == 0
    tree.write(".termite-localrc", '[{"Regexp": "pinned"}]')
    try:
        remote, short = tree.jobs(), shorts(tree)
        for _ in range(3):
            assert tree.termite("sh", "-c", "echo pinned >pinned").code == 0
        assert (tree.jobs(), shorts(tree)) == (remote + 3, short)
    finally:
        (tree.path / ".termite-localrc").unlink()


def test_what_one_master_has_learned_the_next_one_knows(make_place: MakePlace) -> None:
    with make_place("ordinary") as where:
        tree = new_tree(where)
        with cluster(tree, [where], short="1000"):
            assert tree.termite("sh", "-c", "echo >f").code == 0
            assert shorts(tree) == 0
        (where.base / "secret.txt").unlink()
        with cluster(tree, [where], short="1000"):
            assert tree.termite("sh", "-c", "echo >f").code == 0
            assert (tree.jobs(), shorts(tree)) == (0, 1)


def test_none_are_short_where_the_user_says_so(make_place: MakePlace) -> None:
    with make_place("ordinary") as where, cluster(new_tree(where), [where], short="0") as whole:
        for _ in range(RUNS):
            assert whole.tree.termite("true", "here").code == 0
        assert (whole.tree.jobs(), shorts(whole.tree)) == (RUNS, 0)


def test_what_leaves_something_in_a_temporary_directory_is_never_short(tree: Tree) -> None:
    """Later jobs see a private name there only if a worker has made it."""
    command = ("sh", "-c", "rm -f `cat made 2>/dev/null`; mktemp >made")
    short = shorts(tree)
    try:
        for _ in range(RUNS):
            assert tree.termite(*command).code == 0
        assert shorts(tree) == short
    finally:
        tree.plain("sh", "-c", "rm `cat made`")
