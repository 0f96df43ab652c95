"""Move processes to the namespace in which a tree stands at its build path.

The master makes the namespace. Front ends, and those commands of termite-ctl that name paths, join
it: they find the master by its socket, which is one file under both paths. Therefore the master
sees the same paths as its launchers, and translates none.
"""

import contextlib
import os
import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

from termite.cli import client
from termite.cli.build_commands.build_tools import find_source
from termite.cli.claims import wait_for_claims
from termite.cli.flags import print_line
from termite.cli.moved_trees.marks import check_mark, find_mark, write_mark
from termite.cli.moved_trees.path_rules import check_path, parse_path
from termite.cli.moved_trees.path_text import PathText
from termite.cli.moved_trees.private_mounts import enter_private_mounts, join_mounts_of
from termite.cli.places import CACHE, STATE, home, own_directory, working_directory
from termite.engine.errors import UserError
from termite.engine.host.native_programs import native_program
from termite.engine.host.ownership import find_stranger
from termite.engine.paths import MASTER_SOCKET

_SYSTEM = ("/usr", "/etc", "/bin", "/lib", "/tmp", "/var/tmp")  # what each build needs


class MovedTree:
    """A tree with its two paths. `text` translates the own path to the build path.

    `outside` is a descriptor of the tree from outside of its namespace, or -1. The kernel shows its
    path there.
    """

    def __init__(self, own: Path, build_path: Path) -> None:
        self.own, self.build_path = own, build_path
        self.outside = -1
        self.text = PathText(str(own), str(build_path))

    def place(self, path: Path) -> Path:
        """Return the build path of a path of the tree; others stay as they are."""
        return self.build_path / path.relative_to(self.own) if path.is_relative_to(self.own) else path

    def move_surroundings(self, started_in: Path) -> None:
        """Let the current directory and the environment of this process name the build path."""
        os.environ.update(self.text.environment(os.environ))
        here = self.place(started_in)
        os.chdir(here)
        os.environ["PWD"] = str(here)


# -- front ends -------------------------------------------------------------------------------------------------------


def enter_for_build(at: str, directory: str) -> MovedTree | None:
    """Move this process to the namespace of the tree of `directory`, and start a master if needed.

    Return None if the tree stands at `at` anyway. Raise UserError if that is impossible.
    """
    started_in = working_directory()
    place = Path(os.path.realpath(started_in / directory))
    own = _find_tree(at, place, started_in)
    tree = _checked(own, at)
    if tree is None:
        return None
    if not started_in.is_relative_to(own) and not os.path.isabs(directory):
        raise UserError(f"{directory} leads into {own} from outside", hint="change into the tree, or give a whole path")
    _join(_find_or_start(tree, place), tree, started_in)
    return tree


def enter_alone(at: str, directory: str, *, is_dry: bool = False) -> MovedTree | None:
    """Do the same in a new namespace without a master. If `is_dry`, the tree gets no mark."""
    started_in = working_directory()
    place = Path(os.path.realpath(started_in / directory))
    tree = _checked(_find_tree(at, place if place.is_dir() else started_in, started_in), at)
    if tree is None:
        return None
    enter_private_mounts(tree.own, tree.build_path)
    if not is_dry:
        write_mark(tree.build_path, str(tree.build_path))
    tree.move_surroundings(started_in)
    return tree


def _find_tree(at: str, place: Path, started_in: Path) -> Path:
    """Return the tree that is built, by its mark, its master, or as for a new master."""
    if found := find_mark(place):
        check_mark(found[0], str(parse_path(at)))
        return found[0]
    if (socket := client.find_socket(place)) is not None and place.is_relative_to(socket.parent):
        return socket.parent
    return client.choose_root(place, started_in, find_source(place) or place)


def _checked(own: Path, at: str) -> MovedTree | None:
    path = Path(parse_path(at))
    if path == own:
        return None
    check_path(path, own, _needed_places())
    if (real := Path(os.path.realpath(path))) != path:
        raise UserError(f"no tree can be built at {path}: there is a symlink in it", hint=f"did you mean {real}?")
    if reason := find_stranger(path.parent):  # he could put another tree there while the build runs
        raise UserError(f"no tree can be built at {path}: {reason}", hint="choose a path such as /build/project")
    return MovedTree(own, path)


def _needed_places() -> Iterator[tuple[str, Path]]:
    """Yield what the master and its commands must see, wherever the tree stands."""
    yield "your home directory", home()
    yield "termite itself", Path(os.path.realpath(native_program("termite"))).parent
    yield "the Python of termite", Path(sys.prefix)
    yield "the Python of termite", Path(os.path.realpath(sys.executable))
    yield "the cache of termite", own_directory(CACHE)
    yield "the state of termite", own_directory(STATE)
    yield from (("a directory of the system", Path(place)) for place in _SYSTEM)


def _find_or_start(tree: MovedTree, place: Path) -> client.Client:
    socket = tree.own / MASTER_SOCKET
    try:
        return client.Client(socket)
    except client.NoMaster:
        wait_for_claims(tree.own)
    with contextlib.suppress(client.NoMaster):  # no claim has become a master, so start one
        return client.Client(socket)
    source = find_source(place) or place
    exports = [] if source.is_relative_to(tree.own) else [source]
    master, is_ours = client.start_embedded(tree.own, exports=exports, at=str(tree.build_path))
    if is_ours:
        line = f"started a master for {tree.own} at {tree.build_path}, with a worker on this machine"
        print_line("termite", f"{line} (termite-ctl shutdown ends it)")
    return master


def _join(master: client.Client, tree: MovedTree, started_in: Path) -> None:
    """Move this process to the namespace of a master, which must show the tree at its path."""
    top = os.stat(tree.own)
    before = os.stat("/proc/self/ns/mnt")
    join_mounts_of(master.pid)
    try:
        is_there = os.path.samestat(top, os.stat(tree.build_path))
    except OSError:
        is_there = False
    if not is_there or os.path.samestat(before, os.stat("/proc/self/ns/mnt")):
        raise UserError(
            f"a master serves {tree.own} at another path than {tree.build_path}", hint="end it: termite-ctl shutdown"
        )
    write_mark(tree.build_path, str(tree.build_path))  # somebody may have removed it from a clean tree
    tree.move_surroundings(started_in)


# -- termite-ctl ------------------------------------------------------------------------------------------------------


def join_here() -> Path | None:
    """Join the namespace of the master of the current directory, if it has its own.

    Return the own path of the tree then, and None otherwise. Raise NoMaster, or UserError.
    """
    found = find_mark(working_directory())
    if found is None or str(found[0]) == found[1]:
        return None
    own, build_path = found
    _join(client.connect_here(), MovedTree(own, Path(build_path)), working_directory())
    return own


def checked_path(own: Path, at: str) -> str:
    """Return the path at which the tree `own` is built, "" if that is its own path.

    `at` is the path that the user wants, "" for the own one. Raise UserError if it cannot be.
    """
    tree = _checked(own, at) if at else None
    build_path = str(tree.build_path) if tree else ""
    check_mark(own, build_path)
    return build_path


# -- the master -------------------------------------------------------------------------------------------------------


def enter_as_master(flags: Namespace, socket: Path) -> MovedTree | None:
    """Move this process to a new namespace for its tree, and let all paths of `flags` lead there.

    `socket` is the path of the socket. The tree gets its mark when the master serves.
    Return None if the tree is built at its own path. Raise UserError if it must not be built at
    that path.
    """
    own = socket.parent
    build_path = checked_path(own, flags.at)
    if not build_path:
        return None
    tree = MovedTree(own, Path(build_path))
    for name in ("secret", "logfile"):
        if path := getattr(flags, name):
            setattr(flags, name, tree.place(Path(os.path.abspath(path))))
    for name in ("export", "exclude"):
        setattr(flags, name, [tree.place(Path(os.path.abspath(path))) for path in getattr(flags, name)])
    flags.socket = tree.build_path / socket.name
    started_in = working_directory()
    tree.outside = os.open(own, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    enter_private_mounts(own, tree.build_path)
    tree.move_surroundings(started_in)
    return tree
