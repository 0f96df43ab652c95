"""Inode numbers are shared by equal versions, never used again, and forgotten with the kernel."""

import stat

from termite.engine.model import Attr
from termite.fuse.view.inodes import ROOT, Inodes
from termite.fuse.view.views import Base

DIRECTORY = Attr(stat.S_IFDIR | 0o755, 0, 1)


def file(mtime_ns: int = 1, link_id: int = 0) -> Attr:
    return Attr(stat.S_IFREG | 0o644, 5, mtime_ns, nlink=1 + bool(link_id), link_id=link_id)


def test_one_version_of_a_file_has_one_inode_in_all_views() -> None:
    inodes = Inodes()
    version = file()
    assert inodes.file(b"d/f", version) is inodes.file(b"d/f", version)


def test_an_equal_but_newer_version_has_another_inode() -> None:
    inodes = Inodes()
    assert inodes.file(b"d/f", file()).inode != inodes.file(b"d/f", file()).inode


def test_a_directory_has_an_inode_in_each_view() -> None:
    inodes = Inodes()
    one, other = Base("1", DIRECTORY), Base("2", DIRECTORY)
    assert inodes.directory(one, b"d", DIRECTORY) is inodes.directory(one, b"d", DIRECTORY)
    assert inodes.directory(one, b"d", DIRECTORY) is not inodes.directory(other, b"d", DIRECTORY)


def test_hard_links_share_an_inode_in_whatever_directory_and_other_states_do_not() -> None:
    inodes = Inodes()
    assert inodes.file(b"d/a", file(link_id=7)) is inodes.file(b"d/b", file(link_id=7))
    assert inodes.file(b"d/a", file(link_id=7)) is not inodes.file(b"d/c", file(2, link_id=7))
    assert inodes.file(b"d/a", file(link_id=7)) is inodes.file(b"e/a", file(link_id=7))


def test_what_the_kernel_has_forgotten_is_forgotten_and_its_number_never_comes_again() -> None:
    inodes = Inodes()
    at_start = len(inodes)
    version = file()
    node = inodes.file(b"f", version)
    node.lookups = 3
    inodes.forget([(node.inode, 2)])
    assert inodes.file(b"f", version) is node
    inodes.forget([(node.inode, 1)])
    assert len(inodes) == at_start
    assert inodes.file(b"f", version).inode > node.inode


def test_an_open_file_outlives_its_name() -> None:
    inodes = Inodes()
    node = inodes.file(b"f", file())
    node.lookups = node.opens = 1
    inodes.forget([(node.inode, 1)])
    assert inodes.nodes[node.inode] is node
    node.opens = 0
    inodes.drop_if_unused(node)
    assert node.inode not in inodes.nodes


def test_the_mirrors_own_directories_are_never_forgotten() -> None:
    inodes = Inodes()
    inodes.forget([(ROOT, 10), (inodes.whiteout.inode, 10), (12345, 1)])
    assert ROOT in inodes.nodes
    assert inodes.whiteout.inode in inodes.nodes
