"""Commands that change a file with several names leave what a local command leaves.

A job's overlay breaks such a file up, so a command that changes it in place runs here. All others
run on a worker: those that make the name anew, remove it, or give the file one more name.
"""

import subprocess
from collections.abc import Iterator

import pytest

from tests.e2e.cluster import Tree, embedded, new_tree
from tests.e2e.conftest import USERS, MakePlace, needs_root
from tests.e2e.snapshot import snapshot, times

# a and b are one file, d/e and d/f another one; `prog` and `d/prog` are one program, and `one` has
# one name.
PREPARE = """
rm -rf work; mkdir work; cd work; mkdir d
echo first >a; ln a b; echo other >d/e; ln d/e d/f; echo one >one; touch -d @1000000000 a d/e one
cp /bin/true prog; ln prog d/prog; echo 'int x;' >x.c; gcc -g -c x.c -o x.o; ln x.o d/x.o
"""

IN_PLACE = {
    "appends": "echo more >>b; cat a",
    "truncates": ": >b; cat a",
    "writes in the middle": "printf XX | dd of=b bs=1 seek=2 conv=notrunc status=none; cat a b",
    "copies over it": "cp d/e b; cat a",
    "copies over it with the old time": "cp -p one b; ls -l --time-style=+%s a b",
    "strips a program": "strip prog; stat -c %s d/prog",
    "strips an object": "objcopy --strip-debug x.o; stat -c %s d/x.o",
    "changes the mode": "chmod 755 b; ./a; stat -c %a a",
    "changes the time": "touch -d @2000 b; stat -c %Y a",
    "moves it": "mv b c; echo more >>c; cat a",
    "moves it and writes nothing": "mv d/f g",
    "moves it out of a directory that it removes": "mv d/f g; rm -r d",
    "moves its directory": "mv d moved; echo more >>moved/e; cat moved/f",
    "links and writes": "ln b c; echo more >>c; cat a",
    "copies it over itself with attributes": "rm b; cp -a a b",
    "writes through both names": "echo 1 >>a; echo 2 >>b; cat a b",
    "writes through a symlink": "ln -s b s; echo more >>s; cat a",
    "fails afterwards": "echo more >>b; exit 3",
}

OTHERWISE = {
    "compiles": "gcc -c x.c -o x.o",
    "installs": "install x.c x.o",
    "replaces by rename": "echo other >t; mv t b; cat a",
    "edits with a new file": "sed -i s/first/second/ b; cat a b",
    "makes it anew": "rm b; echo again >b; cat a",
    "makes it anew, and equal": "rm b; echo first >b; touch -d @1000000000 b",
    "removes it": "rm b",
    "removes a directory": "rm -r d",
    "gives it one more name": "ln b c; stat -c %a a c",
    "gives a name to another file": "ln -f one a; cat b",
    "gives it another name for a while": "ln b c; cat c; rm c",
    "gives it another name and removes one": "ln b c; rm a",
    "sets the mode it has": "chmod 644 b",
    "opens it for writing and writes nothing": "exec 3>>b",
    "copies all with links": "cp -al d e",
    "opens the only name": "echo more >>one; ln one two; echo again >>two; cat one",
    "copies": "cp -a d e; tar --sort=name -cf - d | tar -tvf - | cut -c 1-10",
    "makes a link": "ln one two",
}


@pytest.fixture(scope="module", params=USERS)
def cluster(request: pytest.FixtureRequest, make_place: MakePlace) -> Iterator[Tree]:
    """Yield a tree with an embedded cluster for this module, as an ordinary user and as root."""
    with make_place(request.param) as where, embedded(new_tree(where)) as tree:
        yield tree


def prepare(tree: Tree) -> None:
    done = tree.plain("sh", "-ec", PREPARE)
    assert done.code == 0, done


def run_here(tree: Tree) -> int:
    return int(tree.status()["fallbacks"].get("linked-file", 0))


@pytest.mark.parametrize("script", IN_PLACE.values(), ids=IN_PLACE.keys())
def test_a_file_that_is_changed_in_place_stays_one_file(cluster: Tree, script: str) -> None:
    prepare(cluster)
    near = cluster.plain("sh", "-c", script, within="work")
    expected = snapshot(cluster.path / "work")
    prepare(cluster)
    before = run_here(cluster)
    far = cluster.termite("sh", "-c", script, within="work")
    assert (far.code, far.stdout) == (near.code, near.stdout), far
    assert snapshot(cluster.path / "work") == expected
    assert run_here(cluster) == before + 1


@pytest.mark.parametrize("script", OTHERWISE.values(), ids=OTHERWISE.keys())
def test_a_command_that_changes_no_such_file_in_place_stays_remote(cluster: Tree, script: str) -> None:
    prepare(cluster)
    near = cluster.plain("sh", "-c", script, within="work")
    expected = snapshot(cluster.path / "work")
    prepare(cluster)
    before, remote = run_here(cluster), cluster.jobs()
    assert cluster.termite("sh", "-c", script, within="work") == near
    assert snapshot(cluster.path / "work") == expected
    assert (run_here(cluster), cluster.jobs()) == (before, remote + 1)


def test_the_same_command_runs_here_at_once_the_next_time(cluster: Tree) -> None:
    prepare(cluster)
    assert cluster.plain("ln", "one", "same", within="work").code == 0
    assert cluster.termite("sh", "-c", "echo once >>same", within="work").code == 0
    before, remote = cluster.jobs("local"), run_here(cluster)
    assert cluster.termite("sh", "-c", "echo once >>same", within="work").stderr == b""
    assert (cluster.jobs("local"), run_here(cluster)) == (before + 1, remote)
    assert cluster.plain("cat", "one", within="work").stdout == b"one\nonce\nonce\n"
    said = cluster.ctl("why", "sh", "-c", "echo once >>same", within="work")
    assert b"a file with several names was changed in place" in said.stdout, said


def test_names_outside_the_tree_count(cluster: Tree) -> None:
    prepare(cluster)
    outside = cluster.where.base / "outside"
    for command in (["rm", "-f", str(outside)], ["ln", "one", str(outside)]):
        assert cluster.plain(*command, within="work").code == 0
    done = cluster.termite("sh", "-c", "echo more >>one", within="work")
    assert done.code == 0, done
    assert outside.read_text() == "one\nmore\n", done


def test_a_name_that_comes_while_the_command_runs_stays_a_name_of_the_file(cluster: Tree) -> None:
    prepare(cluster)
    script = "cat one; echo more >>one; sleep 1"
    with cluster.where.start([cluster.where.termite("termite"), "sh", "-c", script], cluster.path / "work") as far:
        assert far.stdout is not None
        assert far.stdout.readline() == b"one\n"  # it has begun
        assert cluster.plain("ln", "one", "later", within="work").code == 0
        assert far.wait(60) == 0
    assert cluster.plain("cat", "later", within="work").stdout == b"one\nmore\n"
    assert cluster.plain("test", "one", "-ef", "later", within="work").code == 0


@needs_root
def test_a_link_on_a_file_system_below_the_tree_is_one_file(cluster: Tree) -> None:
    prepare(cluster)
    options = f"mode=755,uid={cluster.where.uid},gid={cluster.where.uid}"
    place = cluster.path / "work" / "d"
    subprocess.run([*cluster.where.enter, "mount", "-t", "tmpfs", "-o", options, "none", place], check=True)
    try:
        script = "mkdir -p d/s; echo 1 >d/a; ln d/a d/s/b; ln d/a d/c"
        assert cluster.termite("sh", "-c", script, within="work").code == 0
        assert cluster.termite("sh", "-c", "ln d/c d/s/e; ln d/s/b d/f", within="work").code == 0
        links = cluster.plain("sh", "-c", "stat -c '%h %i' d/a d/s/b d/c d/s/e d/f | sort -u", within="work")
        assert links.stdout.startswith(b"5 ") and links.stdout.count(b"\n") == 1, links
        assert cluster.termite("sh", "-c", "echo 2 >>d/s/b", within="work").code == 0
        assert cluster.plain("cat", "d/a", within="work").stdout == b"1\n2\n"
    finally:
        subprocess.run([*cluster.where.enter, "umount", place], check=True)


def test_a_plain_build_tool_finds_nothing_to_do_afterwards(cluster: Tree) -> None:
    """Times of a linked file come home as a local command leaves them."""
    prepare(cluster)
    makefile = "all: prog.s\nprog.s: prog ; strip -o $@ prog\nprog: x.o ; strip x.o; touch prog\n"
    cluster.write("work/Makefile", makefile)
    assert cluster.make("-s", within="work").code == 0
    assert cluster.plain("make", "-q", within="work").code == 0
    found = times(cluster.path / "work")
    assert found[b"prog"] == found[b"d/prog"]
