"""The table of what each master has proved to have."""

import hashlib
import os
from pathlib import Path

import pytest

from termite.engine.model import Digest
from termite.engine.store import proofs
from termite.engine.store.cas import Cas
from termite.engine.store.proofs import ProofTable

ALICE, BOB = b"a" * 32, b"b" * 32


def digest_of(content: bytes) -> Digest:
    return Digest(hashlib.sha256(content).digest(), len(content))


def test_an_entry_holds_for_one_master_also_in_a_later_process(tmp_path: Path) -> None:
    contents = [digest_of(b"%d" % number) for number in range(1000)]
    table = ProofTable(tmp_path / "proofs", ALICE)
    for digest in contents[::2]:
        table.add(digest)
    table.close()
    alice, bob = ProofTable(tmp_path / "proofs", ALICE), ProofTable(tmp_path / "proofs", BOB)
    assert [alice.has(digest) for digest in contents] == [True, False] * 500
    assert not any(bob.has(digest) for digest in contents)
    alice.close()
    bob.close()


def test_a_public_content_is_everybodys(tmp_path: Path) -> None:
    alice, bob = ProofTable(tmp_path / "proofs", ALICE), ProofTable(tmp_path / "proofs", BOB)
    alice.add_public(digest_of(b"x"))
    assert bob.has(digest_of(b"x"))
    assert not bob.has(digest_of(b"y"))


def test_a_full_bucket_loses_an_entry_and_the_file_does_not_grow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proofs, "BUCKETS", 2)
    table = ProofTable(tmp_path / "proofs", ALICE)
    for number in range(100):
        table.add(digest_of(b"%d" % number))
    assert (tmp_path / "proofs").stat().st_size == 2 * proofs.BUCKET_BYTES
    later = ProofTable(tmp_path / "proofs", ALICE)
    assert sum(later.has(digest_of(b"%d" % number)) for number in range(100)) == 16


@pytest.mark.parametrize("kind", ["link", "directory", "missing"])
def test_without_a_file_this_process_alone_remembers(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "proofs"
    match kind:
        case "link":
            (tmp_path / "victim").write_bytes(b"precious")
            path.symlink_to(tmp_path / "victim")
        case "directory":
            path.mkdir()
        case "missing":
            path = tmp_path / "no" / "proofs"
    table = ProofTable(path, ALICE)
    table.add(digest_of(b"x"))
    assert table.has(digest_of(b"x"))
    assert not ProofTable(path, ALICE).has(digest_of(b"x"))
    assert kind != "link" or (tmp_path / "victim").read_bytes() == b"precious"


def test_a_store_shows_a_blob_to_those_who_have_proved_it(tmp_path: Path) -> None:
    alice = Cas(tmp_path / "cas", proofs=ProofTable(tmp_path / "proofs", ALICE))
    bob = Cas(tmp_path / "cas", proofs=ProofTable(tmp_path / "proofs", BOB))
    digest = alice.put(b"content")
    assert bob.open(digest) is None
    assert bob.path(digest) is None
    assert not bob.verify(digest) and not bob.is_verified(digest)
    before = os.stat(alice.path(digest) or "").st_ino
    assert bob.put(b"content") == digest, "whoever has the content proves it by sending it"
    assert bob.is_verified(digest)
    assert os.stat(bob.path(digest) or "").st_ino == before, "and the blob stays the same file"
    bob.close()
    alice.close()
