"""The preparation of random changes of random trees, and the times that build tools find."""

import os
import shutil
import stat
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
import trio
from hypothesis import example, given, settings
from hypothesis import strategies as st

from termite.engine.model import Attr, Change, Digest
from termite.engine.tree.logic.times import Timing
from termite.engine.tree.master_tree import MasterTree, TreeConfig

Node = tuple[str, bytes, int]  # "d", "f" or "l"; content or target; permissions
Model = dict[str, Node]

PERMISSIONS = st.sampled_from([0o755, 0o644, 0o700, 0o555])
NODES = st.one_of(
    st.tuples(st.just("d"), st.just(b""), st.sampled_from([0o755, 0o700, 0o555])),
    st.tuples(st.just("f"), st.sampled_from([b"", b"1", b"22", b"x" * 1000]), PERMISSIONS),
    st.tuples(st.just("l"), st.sampled_from([b"a", b"/etc", b"../.."]), st.just(0o777)),
)
PATHS = st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map("/".join)


def whole(nodes: Model) -> Model:
    """Return the nodes that have a directory above them."""
    model: Model = {}
    for path in sorted(nodes, key=lambda p: p.count("/")):
        parent = os.path.dirname(path)
        if not parent or model.get(parent, ("",))[0] == "d":
            model[path] = nodes[path]
    return model


MODELS = st.dictionaries(PATHS, NODES, max_size=12).map(whole)


def difference(before: Model, after: Model, remade: set[str]) -> list[str | tuple[str, Node]]:
    """Return the difference as a sandbox reports it.

    First come the topmost names that are gone or replaced, then the new nodes, parents first.
    """

    def is_gone(path: str) -> bool:
        kind = after.get(path, ("",))[0]
        return path in before and (kind != before[path][0] or (kind == "d" and path in remade))

    def is_covered(path: str) -> bool:
        return any(is_gone(os.fspath(parent)) for parent in Path(path).parents)

    gone = [path for path in before if is_gone(path) and not is_covered(path)]
    new = [p for p in after if before.get(p) != after[p] or is_gone(p) or is_covered(p)]
    return [*sorted(gone), *((p, after[p]) for p in sorted(new, key=lambda p: (p.count("/"), p)))]


def make(root: Path, model: Model) -> None:
    for path, (kind, content, mode) in model.items():
        if kind == "d":
            (root / path).mkdir()
        elif kind == "f":
            (root / path).write_bytes(content)
            (root / path).chmod(mode)
        else:
            os.symlink(content, os.fsencode(root / path))
    for path in sorted(model, reverse=True):
        if model[path][0] == "d":
            (root / path).chmod(model[path][2])


def on_disk(root: Path) -> Model:
    model: Model = {}
    for path in sorted(root.rglob("*"), key=lambda p: len(p.parts)):
        name = os.fspath(path.relative_to(root))
        if name.startswith(".termite-staging"):
            continue
        mode = stat.S_IMODE(path.lstat().st_mode)
        if path.is_symlink():
            model[name] = "l", os.fsencode(os.readlink(path)), mode
        elif path.is_dir():
            model[name] = "d", b"", mode
        else:
            model[name] = "f", path.read_bytes(), mode
    return model


def attr_of(node: Node, mtime_ns: int) -> Attr:
    kind, content, mode = node
    if kind == "d":
        return Attr(stat.S_IFDIR | mode, 0, mtime_ns)
    if kind == "l":
        return Attr(stat.S_IFLNK | 0o777, len(content), mtime_ns, None, content)
    return Attr(stat.S_IFREG | mode, len(content), mtime_ns, Digest(sha256(content).digest(), len(content)))


async def publish(home: MasterTree, top: bytes, steps: list[str | tuple[str, Node]], dispatched_ns: int) -> None:
    now_ns = time.time_ns()
    changes: list[Change] = []
    contents: dict[bytes, bytes | Path] = {}
    for step in steps:
        if isinstance(step, str):
            changes.append(Change(top + b"/" + os.fsencode(step), None))
            continue
        attr = attr_of(step[1], now_ns)
        changes.append(Change(top + b"/" + os.fsencode(step[0]), attr))
        if attr.digest:
            contents[attr.digest.sha256] = step[1][1]
    await home.publish(changes, contents, Timing(dispatched_ns, now_ns, now_ns, 0, home.number))


async def shown(home: MasterTree, top: bytes, directory: str = "") -> set[str]:
    """Return the paths of everything that a mirror would see."""
    path = top + b"/" + os.fsencode(directory) if directory else top
    _, _, children = await home.directory(path)
    found = set()
    for name, attr in children.items():
        child = os.path.join(directory, os.fsdecode(name))
        found.add(child)
        if stat.S_ISDIR(attr.mode):
            found |= await shown(home, top, child)
    return found


@example({"a": ("d", b"", 0o555), "a/a": ("d", b"", 0o755)}, {"a": ("d", b"", 0o755)}, set(), False)
@given(before=MODELS, after=MODELS, remade=st.sets(PATHS, max_size=2), is_served=st.booleans())
@settings(deadline=None, max_examples=150)
def test_any_change_of_any_tree_comes_home(before: Model, after: Model, remade: set[str], is_served: bool) -> None:
    async def main(root: Path) -> None:
        top = os.fsencode(root)[1:]
        home = MasterTree(TreeConfig(top))
        if is_served:
            assert await shown(home, top) == set(before)
        await publish(home, top, difference(before, after, remade), home.now_ns())
        assert on_disk(root) == after
        assert await shown(home, top) == set(after)
        number = home.number
        assert home.drain() == number
        home.close()

    # Not in /tmp: what other programs do there is a change, too.
    directory = Path(tempfile.mkdtemp(dir=Path.home()))
    try:
        make(directory, before)
        trio.run(main, directory)
    finally:
        subprocess.run(["chmod", "-R", "u+rwx", directory], check=True)
        shutil.rmtree(directory)


# -- build tools ------------------------------------------------------------------------------------------------------

# A remote output, then a local one that is made from it, as code generators and archives do.
PAIRS = 300

MAKEFILE = """\
all: $(foreach i,$(shell seq {pairs}),local$(i))
remote%: input
\t@echo $@ > request && read x < reply
local%: remote%
\t@echo $< > $@
.SECONDARY:
"""
NINJA = """\
rule remote
  command = echo $out > request && read x < reply
rule local
  command = echo $in > $out
"""


@pytest.fixture
def project() -> Iterator[Path]:
    """Make a project on a file system with fine times, as a user would have it."""
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        (root / "input").write_text("x")
        (root / "Makefile").write_text(MAKEFILE.format(pairs=PAIRS))
        edges = [f"build remote{i}: remote input\nbuild local{i}: local remote{i}\n" for i in range(PAIRS)]
        (root / "build.ninja").write_text(NINJA + "".join(edges))
        os.mkfifo(root / "request")
        os.mkfifo(root / "reply")
        yield root


def serve_requests(root: Path, skew_ns: int, is_ended: threading.Event) -> None:
    """Be a master, and a worker whose clock is wrong by `skew_ns`, for one job at a time."""

    async def main() -> None:
        top = os.fsencode(root)[1:]
        home = MasterTree(TreeConfig(top))
        await home.directory(top)
        while name := (root / "request").read_text().strip():
            number, dispatched_ns = home.drain(), home.now_ns()
            started_ns = time.time_ns() + skew_ns
            content = os.urandom(8)
            digest = Digest(sha256(content).digest(), len(content))
            attr = Attr(stat.S_IFREG | 0o644, len(content), time.time_ns() + skew_ns, digest)
            timing = Timing(dispatched_ns, started_ns, time.time_ns() + skew_ns, -skew_ns, number)
            await home.publish([Change(top + b"/" + os.fsencode(name), attr)], {digest.sha256: content}, timing)
            (root / "reply").write_text("done\n")
        home.close()
        is_ended.set()

    trio.run(main)


@pytest.mark.parametrize("tool", [["make", "-s"], ["ninja", "-j1", "--quiet"]], ids=["make", "ninja"])
@pytest.mark.parametrize("skew_ns", [0, 10**9, -(10**9)])
def test_after_a_build_there_is_nothing_left_to_build(project: Path, tool: list[str], skew_ns: int) -> None:
    if shutil.which(tool[0]) is None:
        pytest.skip(f"no {tool[0]}")
    is_ended = threading.Event()
    thread = threading.Thread(target=serve_requests, args=(project, skew_ns, is_ended), daemon=True)
    thread.start()
    try:
        subprocess.run(tool, cwd=project, check=True, timeout=60)
        dry = subprocess.run([tool[0], "-n"], cwd=project, check=True, timeout=60, capture_output=True, text=True)
    finally:
        (project / "request").write_text("\n")
        assert is_ended.wait(10)
    assert len(list(project.glob("local*"))) == PAIRS
    assert "echo" not in dry.stdout, f"dirty: {dry.stdout.count('echo')}"
