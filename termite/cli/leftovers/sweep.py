"""Clean up after the daemons of this user that were killed (see `footprints`).

Each footprint is handled in a process of its own. If a disk is lost, that process blocks, and keeps
the lock: nobody else goes to that place then, and all other places are cleaned.
"""

import logging
import os
import sqlite3
import time
from contextlib import closing, suppress
from pathlib import Path

from termite.cli.client import log_file
from termite.cli.leftovers.footprints import Footprint, dead_footprints
from termite.cli.logs.log_settings import set_up_logging
from termite.engine.decide.command_memory import SAVING
from termite.engine.errors import TermiteError
from termite.engine.launch.launcher_socket import remove_dead_socket
from termite.engine.loop.readiness import wait_until_readable
from termite.engine.private_directories import DIRECTORY, remove_leftovers
from termite.engine.tree.publishing.orphaned_plans import clear_abandoned_tree
from termite.engine.worker.mirror_homes import SCRATCH_PREFIX, remove_mirror_leftovers

PATIENCE_S = 10.0  # with one footprint; a healthy disk takes milliseconds
# A new master of the tree has its plan before its socket, and a launcher that has its exit ends
# soon. In both cases the next look finds the tree clean, or with a master.
LOOKS = 5
PAUSE_S = 1.0

log = logging.getLogger(__name__)


def main() -> int:
    """Clean up after all daemons that were killed, and return the exit code 0."""
    for dead in dead_footprints():
        pid = os.fork()
        if pid == 0:
            _sweep_and_exit(dead)
        process = os.pidfd_open(pid)
        if wait_until_readable([process], PATIENCE_S):
            os.waitpid(pid, 0)
        os.close(process)
    return 0


def _sweep_and_exit(dead: Footprint) -> None:
    try:
        for look in range(LOOKS):
            time.sleep(PAUSE_S if look else 0)
            if is_swept(dead.places):
                dead.remove()
                return
        dead.put_off()
    finally:
        os._exit(0)


def is_swept(places: dict[str, object]) -> bool:
    """Remove what a killed daemon left in its places. Return whether nothing is left.

    This may block for ever, on a disk that is lost.
    """
    is_clean = True
    match places:
        case {"socket": str(socket), "device": int(device), "inode": int(inode)}:
            is_clean = _is_tree_swept(Path(socket), device, inode)
    match places:
        case {"hashes": str(hashes)}:
            _close_database(Path(hashes))
            remove_leftovers(Path(hashes).parent / SAVING, "")
    match places:
        case {"cache": str(cache), "tmpdir": str(tmpdir)}:
            remove_leftovers(Path(tmpdir), SCRATCH_PREFIX)
            remove_mirror_leftovers(Path(cache))
    return is_clean


def _is_tree_swept(socket: Path, device: int, inode: int) -> bool:
    with suppress(TermiteError):
        set_up_logging("info", log_file(socket.parent))
    try:
        top = os.open(socket.parent, DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return _is_on(socket.parent, device)
    try:
        if os.fstat(top).st_ino != inode:
            return _is_on(socket.parent, device)
        if not remove_dead_socket(top, socket.name):
            return True  # another master runs there, and has cleaned up at its start
        return clear_abandoned_tree(top)
    except (OSError, TermiteError) as error:
        log.warning("sweep-failed tree=%s reason=%s", socket.parent, error)
        return False
    finally:
        os.close(top)


def _is_on(tree: Path, device: int) -> bool:
    """Return whether the disk of a tree that was not found is mounted, so that the tree is gone."""
    for place in (tree, *tree.parents):
        with suppress(OSError):  # it is gone as well: look above it
            return place.stat().st_dev == device
    return False


def _close_database(path: Path) -> None:
    """Let SQLite take in the journal of a killed process, and remove it."""
    with suppress(sqlite3.Error):
        if path.with_name(f"{path.name}-wal").exists():
            with closing(sqlite3.connect(path, timeout=1.0)) as store:
                store.execute("SELECT 1 FROM sqlite_schema").fetchone()


if __name__ == "__main__":
    raise SystemExit(main())
