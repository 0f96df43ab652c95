"""Test at which mounts a symlink is not followed further."""

from termite.engine.tree.tools.slow_mounts import parse_mounts
from tests.unit.tables import each_row

MOUNTS = b"".join(
    b"36 35 98:0 / %s rw shared:1 - %s source rw\n" % mount
    for mount in (
        (b"/", b"ext4"),
        (b"/net", b"autofs"),
        (b"/net/u", b"nfs4"),
        (b"/far\\040off", b"nfs"),
        (b"/mine", b"fuse.sshfs"),
        (b"/disk", b"fuseblk"),
        (b"/local", b"nfs"),
        (b"/local", b"ext4"),
    )
)


@each_row(
    ("path", "may_hang"),
    [
        (b"home/u/x", False),
        (b"far off", True),
        (b"far off/x/y", True),
        (b"far", False),
        (b"net/other", True),
        (b"mine/x", True),
        (b"disk/x", False),
        (b"local/x", False),
    ],
)
def test_a_look_may_hang_at_network_file_systems_and_what_is_mounted_on_demand(path: bytes, may_hang: bool) -> None:
    assert parse_mounts(b"home/u/proj", MOUNTS).may_hang(path) is may_hang


def test_the_mounts_on_which_the_tree_lies_are_looked_at() -> None:
    mounts = parse_mounts(b"net/u/proj", MOUNTS)
    assert [mounts.may_hang(path) for path in (b"net", b"net/u", b"net/u/x", b"net/v")] == [False, False, False, True]


def test_a_machine_with_local_disks_only_has_nothing_to_ask_for() -> None:
    assert not parse_mounts(b"p", b"36 35 98:0 / / rw - ext4 source rw\nodd\n").kinds
