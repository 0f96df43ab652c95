"""The changes of a job on a real overlay, replayed in a tree, are those of the command run there.

Each script runs twice, in a copy of the tree and in a sandbox, and both results are compared.
"""

import hashlib
import os
import random
import shutil
import stat
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from termite.engine.model import Change, Exit
from termite.engine.store.cas import Cas
from termite.fuse.harvest.collect import Harvested
from tests.e2e.bench import PROJECT, SCRATCHES, Bench, is_mirror

OLD_S = 1_500_000_000  # the time of everything in the tree before a job; what is younger was made by it


@pytest.fixture(params=SCRATCHES)
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path, tmpfs=request.param == "tmpfs")
    bench.sandboxes.setup()
    yield bench
    bench.sandboxes.close()


TREE = r"""
echo a > a; echo b > b; echo script > run.sh; chmod 755 run.sh; echo w > w; chmod 600 w; : > empty
mkdir -p d/e/f many; echo x > d/x; echo y > d/e/y; echo z > d/e/f/z; ln -s a link; ln -s d dirlink; ln -s no dangling
mkfifo pipe; mkdir emptydir; chmod 700 emptydir; for i in 1 2 3 4 5; do echo $i > many/$i; done
head -c 3000000 /dev/urandom > large; printf 'o\n' > "$(printf 'odd\n\377 name')"
"""

SCRIPTS = {
    "nothing": "cat a > /dev/null; ls -R > /dev/null; test -w a",
    "a new file": "echo new > n",
    "new directories": "mkdir -p n/o/p; echo x > n/o/p/x; mkdir n/empty",
    "append": "echo more >> a; echo more >> d/e/f/z",
    "overwrite": "echo other > a",
    "truncate": ": > a; : > large",
    "open for writing": "exec 3<>a; exec 3<>d/e/y; : >> b; chmod 644 b; touch -a d/x",
    "chmod": "chmod 600 a; chmod a+x d/x; chmod 711 d; chmod 755 emptydir",
    "touch -d": "touch -d 2015-05-05 a d/e; touch -h -d 2015-05-05 link",
    "touch": "touch a",
    "cp -p": "cp -p a copy; cp -a d dcopy; cp -p large large2",
    "ln of new files": "echo 1 > n; ln n n2; ln n d/n3",
    "ln of a file that was there": "ln a 0; ln a z; ln d/x d/e/x",
    "ln and write": "ln a a2; echo more >> a2",
    "ln and chmod": "ln a a2; chmod 600 a2",
    "ln -f": "ln -f a b",
    "ln and rm": "ln a a2; rm a",
    "ln -s": "ln -s a n; ln -sf b link; ln -sfn many dirlink; ln -s ' ' q",
    "mv of a file": "mv a a2; mv d/x d/e/x",
    "mv over a file": "mv a b",
    "mv of two files past each other": "mv a t; mv b a; mv t b",
    "mv of a directory": "mv d d2",
    "mv into a directory": "mv a b many d/e",
    "mv of a new directory to where one was": "rm -rf d; mkdir n; echo x > n/x; mv n d",
    "rm": "rm a d/x; rm link; rm pipe; rmdir emptydir",
    "rm -rf": "rm -rf d many",
    "rm -rf of everything": "rm -rf ./* .[!.]*",
    "rm and make again, equal": "cp a t; rm a; cat t > a; rm t",
    "rm -rf d; mkdir d": "rm -rf d; mkdir d; echo n > d/n",
    "rm -rf d; mkdir d, empty": "rm -rf d; mkdir d; rm -rf many; mkdir many; chmod 750 many",
    "rm -rf d; mkdir -p d/e": "rm -rf d; mkdir -p d/e; echo y > d/e/y",
    "a file for a directory": "rm -rf d; echo file > d",
    "a symlink for a directory": "rm -rf d; ln -s many d",
    "a directory for a file": "rm a; mkdir a; echo in > a/in",
    "a directory for a symlink": "rm dirlink; mkdir dirlink; echo in > dirlink/in",
    "a symlink for a file": "ln -sf b a",
    "a file for a symlink": "rm link; echo file > link",
    "a link for a directory": "rm -rf d; ln a d",
    "a pipe": "mkfifo n; rm b; mkfifo b; chmod 600 pipe",
    "made and removed": "echo x > n; rm n; mkdir -p o/p; rmdir o/p o; ln a q; rm q",
    "sed -i": "sed -i s/a/A/ a d/x",
    "install": "install -m 555 a installed; install -d -m 2775 made",
    "modes": "echo x > n; chmod 0 n; mkdir o; echo x > o/x; chmod 555 o; echo s > s; chmod 4755 s; chmod 1777 many",
    "odd names": r"""echo > "$(printf '\n\377')"; mv "$(printf 'odd\n\377 name')" -- '-rf *'; echo > ' '; echo > ü""",
    "a deep tree": "p=.; for i in $(seq 100); do p=$p/deep; done; mkdir -p $p; echo x > $p/x",
    "large files": "cp large l2; head -c 70000 large > l3; head -c 65536 large > l4; head -c 65537 large > l5",
    "many files": "for i in $(seq 200); do echo $i > many/n$i; done; rm many/3",
}


@is_mirror
@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS.keys())
async def test_after_a_job_the_tree_is_as_if_it_had_run_at_home(bench: Bench, tmp_path: Path, script: str) -> None:
    await compare_with_home(bench, tmp_path, script)


async def compare_with_home(bench: Bench, tmp_path: Path, script: str, **changes: object) -> None:
    make_tree(bench.project)
    at_home, replayed = tmp_path / "at-home", tmp_path / "replayed"
    for copy in (at_home, replayed):
        run_at_home(f"cp -a . {copy}", bench.project)
    run_at_home(script, at_home)
    ended = await bench.sh(script, **changes)
    assert (ended.exit, ended.stderr) == (Exit(0), b"")
    harvested = await bench.collect(ended)
    replay(harvested, bench.cas, replayed)
    assert listing(replayed) == listing(at_home)
    assert harvested.dropped == ()


@is_mirror
@pytest.mark.parametrize("name", ["nothing", "open for writing"])
async def test_a_job_that_only_reads_brings_home_nothing(bench: Bench, name: str) -> None:
    make_tree(bench.project)
    assert (await bench.collect(await bench.sh(SCRIPTS[name]))).changes == ()


@is_mirror
@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("echo more >> d/e/y", [(b"d/e/y", True)]),
        ("chmod 600 d/e/y", [(b"d/e/y", False)]),
        ("rm -rf d", [(b"d", True)]),
        ("rm -rf d; mkdir d", [(b"d", True), (b"d", True)]),
        ("ln d/x d/0", [(b"d", False), (b"d/0", True)]),
    ],
)
async def test_the_changes_are_as_few_as_can_be(bench: Bench, script: str, expected: list[tuple[bytes, bool]]) -> None:
    make_tree(bench.project)
    harvested = await bench.collect(await bench.sh(script))
    said = [(change.path.removeprefix(PROJECT + b"/"), change.content) for change in harvested.changes]
    assert said == expected


@is_mirror
async def test_writes_elsewhere_are_named_and_sockets_too(bench: Bench) -> None:
    ended = await bench.sh(
        "echo > /etc/x; mkdir /d; echo > /d/x; echo > /tmp/x; python3 -c 'import socket; socket.socket(1).bind(\"s\")'"
    )
    assert ended.exit == Exit(0), ended.stderr
    harvested = await bench.collect(ended)
    assert harvested.changes == ()
    assert harvested.dropped == (b"d/x", b"etc/x", PROJECT + b"/s")


@is_mirror
async def test_ten_thousand_files_come_home(bench: Bench) -> None:
    ended = await bench.sh("mkdir n; cd n; seq 10000 | split -l 1 -a 4 - f")
    assert ended.exit == Exit(0), ended.stderr
    harvested = await bench.collect(ended)
    assert len(harvested.changes) == 10_001
    bench.sandboxes.discard(ended.job)
    bench.sandboxes.scratch.clear_up()
    with trio.fail_after(30):
        while os.listdir(bench.scratch) != ["parts"]:  # noqa: ASYNC110  # a process that nobody waits for tells nobody
            await trio.sleep(0.01)


def make_tree(project: Path) -> None:
    run_at_home(TREE, project)
    for directory, directories, names in os.walk(os.fsencode(project), topdown=False):
        for name in [*names, *directories]:
            os.utime(os.path.join(directory, name), (OLD_S, OLD_S), follow_symlinks=False)


def run_at_home(script: str, cwd: Path) -> None:
    subprocess.run(["sh", "-c", script], cwd=cwd, check=True, env={"PATH": "/usr/bin:/bin"}, timeout=60)


def listing(root: Path) -> dict[bytes, tuple[object, ...]]:
    """Describe type, mode, content and links of all files, and the times that a job set or kept."""
    top = os.fsencode(root)
    found: dict[bytes, tuple[object, ...]] = {}
    first: dict[int, bytes] = {}
    for directory, directories, names in os.walk(top):
        for name in sorted([*directories, *names]):
            path = os.path.join(directory, name)
            status = os.lstat(path)
            content = os.readlink(path) if stat.S_ISLNK(status.st_mode) else b""
            if stat.S_ISREG(status.st_mode):
                content = hashlib.sha256(Path(os.fsdecode(path)).read_bytes()).digest()
            inode = None if stat.S_ISDIR(status.st_mode) else first.setdefault(status.st_ino, path)
            linked = inode and os.path.relpath(inode, top)
            mtime_ns = status.st_mtime_ns if status.st_mtime < time.time() - 86400 else "now"
            found[os.path.relpath(path, top)] = (oct(status.st_mode), content, linked, mtime_ns)
    return found


def replay(harvested: Harvested, cas: Cas, root: Path) -> None:
    """Apply the changes in their order, in the simplest way; directories get their times last.

    A directory that no change names keeps its time. There, the command wrote to a file in place,
    where this function makes a new one.
    """
    times = {path: os.stat(path).st_mtime_ns for path, _, _ in os.walk(os.fsencode(root))}
    for change in harvested.changes:
        path = os.path.join(os.fsencode(root), change.path.removeprefix(PROJECT + b"/"))
        if change.attr is None:
            remove(path)
        elif change.link_to is not None:
            remove(path)
            os.link(os.path.join(os.fsencode(root), change.link_to.removeprefix(PROJECT + b"/")), path)
        else:
            if change.content:
                make(path, change, harvested, cas)
            if not stat.S_ISLNK(change.attr.mode):
                os.chmod(path, stat.S_IMODE(change.attr.mode))
            os.utime(path, ns=(change.attr.mtime_ns, change.attr.mtime_ns), follow_symlinks=False)
            if stat.S_ISDIR(change.attr.mode):
                times[path] = change.attr.mtime_ns
    for path, mtime_ns in times.items():
        if os.path.isdir(path):
            os.utime(path, ns=(mtime_ns, mtime_ns))


def make(path: bytes, change: Change, harvested: Harvested, cas: Cas) -> None:
    assert change.attr is not None
    mode = change.attr.mode
    if stat.S_ISDIR(mode):
        os.mkdir(path)
        return
    if os.path.lexists(path):
        os.unlink(path)
    if stat.S_ISLNK(mode):
        os.symlink(change.attr.target, path)
    elif stat.S_ISFIFO(mode):
        os.mkfifo(path)
    else:
        assert change.attr.digest is not None
        blob = cas.path(change.attr.digest)
        assert blob is not None
        content = blob.read_bytes()
        assert harvested.inline.get(change.attr.digest.sha256, content) == content
        Path(os.fsdecode(path)).write_bytes(content)


def remove(path: bytes) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)


# -- storms -----------------------------------------------------------------------------------------------------------

# fmt: off
NAMES = (
    "a", "b", "d", "d/x", "d/e", "d/e/y", "d/e/f", "link", "dirlink", "many", "many/1", "n", "n/o", "q", "pipe",
    "emptydir", "empty", "large",
)
# fmt: on

# Hard links of symlinks, and of contents that `mv` had to copy, are known differences, and are not
# compared.
STEPS = (
    "rm -rf {x}",
    "rm -f {x}",
    "rmdir {x}",
    "mkdir {x}",
    "mkdir -p {x}/z",
    "mkfifo {x}",
    "touch -d 2016-01-01 {x}",
    "chmod 700 {x}",
    "chmod 755 {x}",
    "cp -a {x} {y}",
    "ln -sfn {x} {y}",
    "test -d {x} || mv {x} {y}",
    "test -d {x} || test -p {x} || test -L {x} || ln -fn {x} {y}",
    "test -p {x} || echo {x} > {x}",
    "test -f {x} && echo more >> {x}",
    "test -f {x} && : >> {x}",
)


def storm(seed: int) -> str:
    """Draw some steps in any order. Many of them fail, in the tree as in the sandbox."""
    chance = random.Random(seed)
    steps = [chance.choice(STEPS).format(x=chance.choice(NAMES), y=chance.choice(NAMES)) for _ in range(12)]
    return "exec 2>/dev/null\n" + "".join(f"({step})\n" for step in steps) + "true"


@is_mirror
@pytest.mark.parametrize("seed", range(20))
async def test_after_a_storm_the_tree_is_as_if_it_had_come_down_at_home(
    bench: Bench, tmp_path: Path, seed: int
) -> None:
    await compare_with_home(bench, tmp_path, storm(seed), uid=0, gid=0)
