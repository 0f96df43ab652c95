"""Test the reading of the kernel's list of mounts."""

from termite.engine.tree.volumes import parse_mount_point


def test_a_mount_point_has_no_escapes() -> None:
    line = rb"36 35 98:0 /mnt1 /a\040b\134c\011d rw,noatime master:1 - ext3 /dev/root rw"
    assert parse_mount_point(line) == b"a b\\c\td"
    assert parse_mount_point(b"27 1 254:0 / / rw - ext4 /dev/root rw") == b""
