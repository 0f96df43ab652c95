"""The key by which workers tell the contents of one user from those of others."""

import os
import stat
from pathlib import Path

import pytest

from termite.engine.wire.owner import OWNER_BYTES, owner_key, read_owner


def test_it_is_made_once_for_its_user_alone(tmp_path: Path) -> None:
    path = tmp_path / "owner"
    key = read_owner(path)
    assert len(key) == OWNER_BYTES
    assert read_owner(path) == key
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["owner"]


@pytest.mark.parametrize("kind", ["short", "open", "link", "fifo", "directory"])
def test_a_file_of_no_use_gives_a_key_for_this_process(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "owner"
    match kind:
        case "short":
            path.write_bytes(b"x")
            path.chmod(0o600)
        case "open":
            path.write_bytes(bytes(OWNER_BYTES))
            path.chmod(0o644)
        case "link":
            (tmp_path / "other").write_bytes(bytes(OWNER_BYTES))
            (tmp_path / "other").chmod(0o600)
            path.symlink_to(tmp_path / "other")
        case "fifo":
            os.mkfifo(path, 0o600)
        case "directory":
            path.mkdir()
    keys = {read_owner(path), read_owner(path)}
    assert len(keys) == 2
    assert bytes(OWNER_BYTES) not in keys


def test_a_worker_gets_no_key_for_another_worker() -> None:
    keys = {owner_key(bytes(32), "a:1"), owner_key(bytes(32), "a:2"), owner_key(bytes([1] * 32), "a:1")}
    assert len(keys) == 3
    assert owner_key(b"x", "inproc:worker") == owner_key(b"x", "inproc:other")
    assert bytes(32) not in keys
