"""Check one round: the tree, the output, the exit code, and what is left on the machine.

Each problem is a line that begins with "wrong:", "hang:" or "left:".
"""

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from tests.torture.model import (
    Model,
    ModelError,
    build_plainly,
    counted_lines,
    differences,
    order_broken,
    read_times,
    read_tree,
)
from tests.torture.processes import PROC, read_processes
from tests.torture.scene import Scene

_ONCE = b"once/"
_INTERMEDIATE = (b"once/many", b"once/text")  # one is moved away later, one is patched
GONE_S = 10.0  # processes of a killed daemon notice its end, kill their jobs and clean up
LOOK_S = 0.1
SHOWN = 5  # differences in a message
# termite says so if a command was lost and cannot be run again; its exit code is then 101.
_SAID = re.compile(rb"^termite: .*, in the middle of: |Error 101\b|\[code=101\]", re.MULTILINE)


def is_said(output: bytes) -> bool:
    """Return True if the user has been told that a command was lost."""
    return bool(_SAID.search(output))


def check_tree(scene: Scene, get_model: Callable[[], Model]) -> Iterator[str]:
    """Compare the tree with the model. A plain build must change nothing.

    `get_model` is called last: it may build in the same tree.
    """
    found = read_tree(scene.tree)
    before = read_times(scene.tree)
    try:
        build_plainly(scene.project, scene.rig.where, scene.rig.tree)
    except ModelError as error:
        yield f"wrong: afterwards {error}"
    after = read_times(scene.tree)
    changed = sorted(path.decode() for path in before.keys() | after.keys() if before.get(path) != after.get(path))
    changed += differences(found, read_tree(scene.tree))
    if changed:
        yield f"wrong: a plain build afterwards changes {'; '.join(changed[:SHOWN])}"
    model = get_model()
    if differing := differences(model.entries, found):
        yield f"wrong: {len(differing)} paths differ: {'; '.join(differing[:SHOWN])}"
    if broken := order_broken(model.pairs, before):
        yield f"wrong: order of times: {'; '.join(broken[:SHOWN])}"


def check_partial_tree(scene: Scene, model: Model) -> Iterator[str]:
    """Compare the results of a build that ended early: some may be missing, but none may be double.

    Only results of the commands that may not run twice are compared; others have intermediate
    results.
    """
    found = {path: entry for path, entry in read_tree(scene.tree).items() if path.startswith(_ONCE)}
    wanted = {path: model.entries.get(path) for path in found if not path.startswith(_INTERMEDIATE)}
    differing = [path.decode() for path, entry in wanted.items() if entry != found[path]]
    if differing:
        yield f"wrong: the build ended early, and {len(differing)} paths differ: {'; '.join(differing[:SHOWN])}"


def check_output(model: Model, output: bytes) -> Iterator[str]:
    """Compare the lines of all jobs: each must be there as often as in a plain build."""
    found = counted_lines(output)
    missing, surplus = model.lines - found, found - model.lines
    if missing or surplus:
        yield f"wrong: output: missing {list(missing.items())[:SHOWN]}, surplus {list(surplus.items())[:SHOWN]}"


def check_leftovers(scene: Scene) -> Iterator[str]:
    """Wait until all processes of the round are gone, then look for everything else."""
    deadline = time.monotonic() + GONE_S
    while (left := _processes(scene)) and time.monotonic() < deadline:
        time.sleep(LOOK_S)
    yield from (f"left: process {line}" for line in left)
    yield from (f"left: mount {line}" for line in sorted(_mounts(scene.rig.where.base)))
    yield from (f"left: file {path}" for path in _files(scene))


def _processes(scene: Scene) -> list[str]:
    base = scene.rig.where.base
    known = read_processes(scene.mark, base)
    strangers = [pid for pid in _inside(base) if pid not in known and pid != scene.rig.where.holder]
    return [*map(str, known.values()), *(f"{pid} with mounts of the round" for pid in strangers)]


def _inside(base: Path) -> list[int]:
    """Return the processes with a FUSE or overlay mount of the round, whatever their name."""
    return [int(name) for name in os.listdir(PROC) if name.isdigit() and any(_mounts_of(name, base))]


def _mounts(base: Path) -> set[str]:
    return {line for name in os.listdir(PROC) if name.isdigit() for line in _mounts_of(name, base)}


def _mounts_of(name: str, base: Path) -> Iterator[str]:
    with suppress(OSError):
        for line in (PROC / name / "mountinfo").read_text().splitlines():
            if (" - fuse" in line or " - overlay" in line) and str(base) in line:
                yield line


def _files(scene: Scene) -> Iterator[str]:
    """Yield sockets, staging and scratch files, and temporary files of the stores."""
    rig = scene.rig
    for path in scene.tree.rglob(".termite-*"):
        if path.name != ".termite-localrc":
            yield str(path.relative_to(scene.tree))
    base = rig.seen(rig.where.base)
    for worker in ("w0", "w1"):
        cache = base / rig.cache(worker).name
        scratch = base / rig.scratch(worker).name
        for path in (*scratch.iterdir(), *cache.rglob("cas/tmp/*"), *cache.rglob("warm/*")):
            yield str(path.relative_to(base))
    home = base / "home"
    for pattern in (".cache/termite/hashes-*", ".cache/termite/saving/*", ".local/state/termite/running/*"):
        yield from (str(path.relative_to(base)) for path in home.glob(pattern))
    if rig.where.holder:
        for top in ("/tmp", "/var/tmp"):
            # A compiler that is killed leaves temporary files without termite as well.
            yield from (f"{top}/{path.name}" for path in rig.seen(Path(top)).glob("*termite*"))
