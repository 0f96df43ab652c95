"""The file with the secret: what is read and what is refused."""

import os
from pathlib import Path

import pytest

from termite.engine.errors import UserError
from termite.engine.wire.identity import read_secret
from tests.unit.engine.wire.test_identity import SECRET

# -- the secret file --------------------------------------------------------------------------------------------------


def secret_file(path: Path, content: bytes, mode: int = 0o600) -> Path:
    file = path / "secret.txt"
    file.write_bytes(content)
    file.chmod(mode)
    return file


def test_a_secret_is_read_without_the_white_space_that_an_editor_adds(tmp_path: Path) -> None:
    assert read_secret(secret_file(tmp_path, SECRET + b"\r\n")) == SECRET


def test_a_missing_secret_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no secret .*termite-ctl secret"):
        read_secret(tmp_path / "secret.txt")


@pytest.mark.attack
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o622, 0o601])
def test_a_secret_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(UserError, match=r"others can read the secret \(chmod 0600"):
        read_secret(secret_file(tmp_path, SECRET, mode))


@pytest.mark.parametrize("content", [b"", b"fifteen bytes..", b"short         \n\n\n\n\n", b"x" * 70_000])
def test_a_secret_of_a_wrong_size_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(UserError, match="the secret has"):
        read_secret(secret_file(tmp_path, content))


def test_a_directory_is_no_secret(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot read the secret"):
        read_secret(tmp_path)


@pytest.mark.attack
def test_a_fifo_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "secret.txt", 0o600)
    with pytest.raises(UserError, match="a regular file"):
        read_secret(tmp_path / "secret.txt")


@pytest.mark.attack
@pytest.mark.needs_root("gives a file to another user")
def test_the_secret_of_another_user_is_refused(tmp_path: Path) -> None:
    os.chown(secret_file(tmp_path, SECRET), 61234, -1)
    with pytest.raises(UserError, match="belongs to user 61234"):
        read_secret(tmp_path / "secret.txt")
