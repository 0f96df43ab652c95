"""Show the stores that termite keeps between builds, check them, and empty them.

A store is emptied only if no daemon uses it. A mirror that runs has a locked directory in each of
the places that it uses. A master is in the list of living daemons with its database of digests.
The store of results is emptied in any case: masters find nothing in it then.
"""

import json
import os
import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from termite.cli.amounts import counted, size_text
from termite.cli.leftovers.footprints import living_places
from termite.cli.parser import Parser
from termite.cli.places import CACHE, ROOT_CACHE, default_cache, own_directory
from termite.cli.readers.recorded_builds import recorded_builds_here
from termite.cli.subcommands.registry import Subcommand
from termite.engine.errors import Retryable, UserError
from termite.engine.model import DEFAULT_STORE_BYTES, DEFAULT_STORE_FILES, StoreLimits
from termite.engine.private_directories import DIRECTORY, is_abandoned, remove_tree
from termite.engine.recall.result_store import DISK_SHARE, ResultStore
from termite.engine.status.control_requests import ControlAnswer
from termite.engine.wire.protocol.foreign_text import printable

RESULTS = "results"  # the kind of the store of results
SECTOR_BYTES = 512  # the unit of st_blocks


class KeptStore(NamedTuple):
    """A store on this machine.

    `kind` is its name for people. `path` is a directory or a file. `limit` says in words what keeps
    it small. `locks` is the directory in which its users have locked directories, or None.
    """

    kind: str
    path: Path
    limit: str
    locks: Path | None = None


def _add_flags(parser: Parser) -> None:
    parser.add_argument(
        "action",
        nargs="?",
        choices=("show", "clean", "verify"),
        default="show",
        help="show the stores with sizes, limits and hit rates. With clean, empty those that no daemon uses. "
        "With verify, read all stored results again, and remove what is damaged",
    )
    parser.add_argument(
        "--cachedir",
        type=Path,
        metavar="DIR",
        help=f"the -cachedir of a worker (default: {ROOT_CACHE}; ~/.cache/termite of an ordinary user)",
    )
    parser.add_argument("--json", action="store_true", help="print a list of objects, as JSON")


def _run(flags: Namespace) -> int:
    stores = list(stores_below(flags.cachedir or default_cache(), own_directory(CACHE)))
    if flags.action == "clean":
        return _clean(stores)
    if flags.action == "verify":
        return _verify(stores)
    sizes = [(store, *size_of(store.path)) for store in stores]
    if flags.json:
        print(json.dumps([_facts_of(store, size_bytes, files) for store, size_bytes, files in sizes], indent=2))
        return 0
    print("\n".join(_table_lines(sizes)) or "there are no stores: no worker and no master has run here yet")
    for line in _rate_lines():
        print(line)
    return 0


def _rate_lines() -> Iterator[str]:
    """Yield how many commands of the recorded builds of this tree were answered by results."""
    with suppress(UserError):
        builds = recorded_builds_here().past.builds()
        jobs = sum(build.jobs for build in builds)
        if cached := sum(build.counts.cached for build in builds):
            share = f"{cached} of {counted(jobs, 'command')} ({cached / jobs:.0%})"
            yield f"hits in the recorded builds of this tree: {share}"


def _table_lines(sizes: list[tuple[KeptStore, int, int]]) -> Iterator[str]:
    """Yield a line for each store, and for each kind the sum and the limit."""
    for store, size_bytes, files in sizes:
        used = "  (in use)" if is_in_use(store) else ""
        yield f"{store.kind:<10}{size_text(size_bytes):>11}{files:>9} files  {printable(str(store.path))}{used}"
    limits = {store.kind: store.limit for store, _, _ in sizes}
    for kind, limit in limits.items():
        total_bytes = sum(size_bytes for store, size_bytes, _ in sizes if store.kind == kind)
        yield f"all {kind}: {size_text(total_bytes)}; {limit}"


def stores_below(worker_cache: Path, master_cache: Path) -> Iterator[KeptStore]:
    """Yield the stores that exist. `worker_cache` may have one for each user of a root worker."""
    homes = [worker_cache]
    if worker_cache.is_dir():
        homes += sorted(entry for entry in worker_cache.glob("user-*") if entry.is_dir() and not entry.is_symlink())
    default = f"-cache-size {size_text(DEFAULT_STORE_BYTES)}, -cache-files {DEFAULT_STORE_FILES}"
    limit = f"a worker keeps them below its limits (default: {default}" + (
        ", for all users)" if len(homes) > 1 else ")"
    )
    for home in homes:
        contents, layers = (_place_of(home / name, is_ours=home == worker_cache) for name in ("cas", "warm"))
        if contents is not None:
            yield KeptStore("contents", contents, limit, contents / "tmp")
        if layers is not None:
            yield KeptStore("layers", layers, "a layer goes when its lease ends", layers)
    if (master_cache / "hashes").is_file():
        yield KeptStore("digests", master_cache / "hashes", "an entry goes after 60 days without use")
    if (results := master_cache / "results").is_dir() and not results.is_symlink():
        share = f"{size_text(DEFAULT_STORE_BYTES)}, or {DISK_SHARE:.0%} of the disk if that is less"
        yield KeptStore(RESULTS, results, f"masters keep it below {share}")


def _place_of(path: Path, *, is_ours: bool) -> Path | None:
    """Return the directory of a store, or None if there is none.

    A user may have put his own on another disk, with a symlink. Those of the users of a root worker
    are not followed, because a job could have made one.
    """
    if not path.is_dir() or (path.is_symlink() and not is_ours):
        return None
    return path.resolve() if is_ours else path


def size_of(path: Path) -> tuple[int, int]:
    """Return the space on the disk that a file or a directory takes, and the number of files."""
    size_bytes, files = 0, 0
    waiting = [os.fspath(path)]
    while waiting:
        name = waiting.pop()
        try:
            status = os.lstat(name)
            if os.path.isdir(name) and not os.path.islink(name):
                waiting += [entry.path for entry in os.scandir(name)]
            else:
                files += 1
        except OSError:  # it was evicted meanwhile, or another user has it
            continue
        size_bytes += status.st_blocks * SECTOR_BYTES
    return size_bytes, files


def is_in_use(store: KeptStore) -> bool:
    """Return whether a daemon uses a store, so that nobody may empty it."""
    if store.kind == RESULTS:
        return False
    if store.locks is None:
        return any(places.get("hashes") == str(store.path) for places in living_places())
    try:
        names = os.listdir(store.locks)
    except OSError:
        return False
    return any(_is_locked(store.locks / name) for name in names)


def _is_locked(path: Path) -> bool:
    try:
        fd = os.open(path, DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        return not is_abandoned(fd)
    finally:
        os.close(fd)


def _clean(stores: list[KeptStore]) -> int:
    """Empty the stores. Raise UserError, after the others are empty, if one of them is in use."""
    used = [store for store in stores if is_in_use(store)]
    for store in stores:
        if store in used:
            continue
        size_bytes, _ = size_of(store.path)
        if store.kind == RESULTS:
            with _open_results(store.path) as results:
                results.clear()
            size_bytes -= size_of(store.path)[0]
        elif store.path.is_dir():
            remove_tree(store.path)
        else:
            for name in ("", "-wal", "-shm"):  # SQLite's companions of the file
                store.path.with_name(store.path.name + name).unlink(missing_ok=True)
        print(f"{store.kind}: {size_text(size_bytes)} removed from {printable(str(store.path))}")
    if used:
        names = ", ".join(str(store.path) for store in used)
        raise UserError(f"kept, because a daemon uses it: {names}", hint="end the masters and workers of this machine")
    return 0


def _verify(stores: list[KeptStore]) -> int:
    """Read every stored result. Return 1 if something was damaged; it is removed."""
    bad = 0
    for store in stores:
        if store.kind != RESULTS:
            continue
        with _open_results(store.path) as results:
            read_bytes = sum(results.scrub(None))
            counts = results.statistics()
            rows, contents = results.check(), counts["bad"]
            bad += rows + contents
        found = f"{counted(rows, 'damaged row')} and {counted(contents, 'damaged content')} removed"
        print(f"{store.kind}: {counted(counts['results'], 'result')}, {size_text(read_bytes)} read; {found}")
    return 1 if bad else 0


@contextmanager
def _open_results(path: Path) -> Iterator[ResultStore]:
    """Open the store of results. Raise UserError if this is impossible."""
    try:
        store = ResultStore(path, StoreLimits(), int(time.time()))
    except (OSError, Retryable) as error:
        raise UserError(f"the results in {path} cannot be opened: {error}") from error
    try:
        yield store
    finally:
        store.close()


def _facts_of(store: KeptStore, size_bytes: int, files: int) -> ControlAnswer:
    return {
        "store": store.kind,
        "path": str(store.path),
        "size_bytes": size_bytes,
        "files": files,
        "limit": store.limit,
        "is_in_use": is_in_use(store),
    }


SUBCOMMAND = Subcommand(
    "show the stores of this machine with their sizes, check them, or empty them",
    _run,
    _add_flags,
    more="The stores are file contents and layers of workers, and digests and results of masters.",
    example="termite-ctl cache clean",
)
