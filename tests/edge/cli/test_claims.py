"""A build that begins while a master starts must find this master."""

import os
import threading
from pathlib import Path

import pytest

from termite.cli.claims import claim_tree, wait_for_claims


def test_nobody_waits_where_no_master_starts(tmp_path: Path) -> None:
    assert not wait_for_claims(tmp_path)


@pytest.mark.parametrize("below", [".", "a/b"])
def test_a_build_waits_for_the_master_that_starts_for_its_tree(tmp_path: Path, below: str) -> None:
    claim = claim_tree([f"--socket={tmp_path}/s"])
    assert claim is not None
    place = tmp_path / below
    place.mkdir(parents=True, exist_ok=True)
    waited: list[bool] = []
    waiting = threading.Thread(target=lambda: waited.append(wait_for_claims(place)))
    waiting.start()
    connection, _ = claim.accept()  # it has come, and is told nothing
    assert not waited
    connection.close()  # as all are when the process closes its claim, or ends
    waiting.join(10)
    assert waited == [True]
    claim.close()


@pytest.mark.parametrize("words", [[], ["-secret", "x"], ["-socket"], ["--socket=s"], ["--", "-socket"]])
def test_the_tree_is_where_the_socket_will_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    claim = claim_tree(words)
    assert claim is not None
    status = os.stat(tmp_path)
    assert claim.getsockname().endswith(f"-{status.st_dev:x}-{status.st_ino:x}".encode())
    assert claim_tree(words) is None, "it is taken"
    claim.close()


def test_a_tree_that_is_not_there_is_not_claimed(tmp_path: Path) -> None:
    assert claim_tree(["-socket", str(tmp_path / "no" / "s")]) is None
