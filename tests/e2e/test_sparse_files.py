"""Sparse files come home sparse, and zeros cost neither time nor space."""

import hashlib
import os
import shutil
import time
from pathlib import Path

import pytest

from tests.e2e.cluster import Tree
from tests.e2e.places import Outcome

HUGE = "20G"
HUGE_BYTES = 20 * 1024**3
FEW_S = 5.0  # to hash, send and write 20 GiB takes a minute
SLACK_KIB = 4096  # overlayfs copies holes in steps of a MiB or two
MKE2FS = shutil.which("mke2fs") or shutil.which("mke2fs", path="/usr/sbin:/sbin")


def used_kib(path: Path) -> int:
    return path.stat().st_blocks // 2


def data_of(path: Path) -> str:
    """Return a digest of the data of a file and of where they are, not of its holes."""
    state = hashlib.sha256(b"%d" % path.stat().st_size)
    with path.open("rb") as file:
        at = 0
        while True:
            try:
                at = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError:
                return state.hexdigest()
            block = os.pread(file.fileno(), 4096, at - at % 4096)
            if block.strip(b"\0"):
                state.update(b"%d" % (at // 4096) + block)
            at += 4096 - at % 4096


def as_plain(tree: Tree, *scripts: str, most_s: float = FEW_S) -> list[Path]:
    """Run scripts plainly and on a worker, compare the files, and return those of the worker."""
    plain, remote = tree.subtree("plain"), tree.subtree("remote")
    jobs = tree.jobs()
    for script in scripts:
        assert plain.plain("sh", "-ec", script).code == 0
        began_s = time.monotonic()
        assert remote.termite("sh", "-ec", script) == Outcome(0, b"", b"")
        took_s = time.monotonic() - began_s
        assert took_s < most_s, (script, took_s)
    assert tree.jobs() == jobs + len(scripts)
    names = sorted(path.name for path in plain.path.iterdir())
    assert sorted(path.name for path in remote.path.iterdir()) == names
    for name in names:
        ours, theirs = remote.path / name, plain.path / name
        assert data_of(ours) == data_of(theirs), name
        assert used_kib(ours) <= used_kib(theirs) + SLACK_KIB, name
    return [remote.path / name for name in names]


def test_a_file_of_20_gib_that_truncate_makes_costs_nothing(tree: Tree) -> None:
    (image,) = as_plain(tree, f"truncate -s {HUGE} disk.img")
    assert image.stat().st_size == HUGE_BYTES and used_kib(image) < SLACK_KIB


def test_a_hole_in_the_middle_stays_and_a_later_job_writes_into_it(tree: Tree) -> None:
    make = "echo begin >f; truncate -s 5G f; echo middle >>f; truncate -s 10G f; echo end >>f"
    add = "printf added | dd of=f bs=1 seek=3000000000 conv=notrunc status=none"
    (path,) = as_plain(tree, make, add, most_s=2 * FEW_S)
    with path.open("rb") as file:
        file.seek(3000000000)
        assert file.read(5) == b"added"


def test_a_copy_of_a_sparse_file_is_sparse(tree: Tree) -> None:
    as_plain(tree, "truncate -s 300M a; echo x >>a", "cp --sparse=always a b; cp --sparse=auto a c", most_s=4 * FEW_S)


def test_written_zeros_take_space_as_in_a_plain_build(tree: Tree) -> None:
    (path,) = as_plain(tree, "dd if=/dev/zero of=zeros bs=1M count=8 status=none")
    assert used_kib(path) >= 8 * 1024


@pytest.mark.skipif(not MKE2FS, reason="mke2fs is not installed")
def test_an_image_of_a_file_system_is_made_in_two_steps(tree: Tree) -> None:
    format_it = f"E2FSPROGS_FAKE_TIME=1 {MKE2FS} -q -F -t ext4 -U 00000000-0000-0000-0000-000000000001"
    format_it += " -E hash_seed=00000000-0000-0000-0000-000000000002,lazy_itable_init=1 disk.img"
    (image,) = as_plain(tree, f"truncate -s {HUGE} disk.img", format_it, most_s=4 * FEW_S)
    assert image.stat().st_size == HUGE_BYTES


def test_a_sparse_input_of_the_user_is_read_without_its_zeros(tree: Tree) -> None:
    path = tree.write("input", "begin")
    with path.open("r+b") as file:
        file.truncate(HUGE_BYTES)
    jobs = tree.jobs()
    began_s = time.monotonic()
    script = "head -c 5 input; tail -c 3 input | od -An -tx1; stat -c %s input"
    done = tree.termite("sh", "-c", script)
    assert done == Outcome(0, b"begin 00 00 00\n%d\n" % HUGE_BYTES, b"")
    assert time.monotonic() - began_s < FEW_S
    assert tree.jobs() == jobs + 1
