"""A hello proves membership once, and nobody without the secret can make such a proof."""

import ssl

import pytest

from termite.engine.wire import identity as identities
from termite.engine.wire.authority import Role, member_key, mint
from termite.engine.wire.identity import SERVER_NAME, Identity, Members, make_proof

SECRET, OTHER = b"a secret of sixteen bytes", b"another secret of the kind"
KEY = member_key(SECRET)


def hello_of(identity: Identity) -> bytes:
    """Return the first bytes that a client with this identity sends."""
    sent = ssl.MemoryBIO()
    tls = identity.client_context().wrap_bio(ssl.MemoryBIO(), sent, server_hostname=SERVER_NAME)
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return sent.read()


def test_a_client_with_the_secret_proves_it_once_with_each_connection() -> None:
    members, client = Members(KEY), mint(SECRET, "m", Role.CLIENT)
    first, second = hello_of(client), hello_of(client)
    assert members.proves(first) and members.proves(second)
    assert not members.proves(first), "somebody has seen it and sends it again"


@pytest.mark.parametrize("role", [Role.MIRROR, Role.COORDINATOR])
def test_what_a_mirror_holds_proves_nothing(role: Role) -> None:
    assert not Members(KEY).proves(hello_of(mint(SECRET, "m", role)))
    assert mint(SECRET, "m", role).member_key == b""


def test_another_secret_proves_nothing() -> None:
    assert not Members(KEY).proves(hello_of(mint(OTHER, "m", Role.CLIENT)))


def test_a_changed_or_cut_proof_proves_nothing() -> None:
    proof = make_proof(KEY).encode()
    for at in range(len(proof)):
        assert not Members(KEY).proves(proof[:at]), at
        changed = bytes([proof[at] ^ 1])
        assert not Members(KEY).proves(proof[:at] + changed + proof[at + 1 :]), at
    assert Members(KEY).proves(b"\x16" + proof + b"\xff")


def test_a_bounded_number_of_proofs_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identities, "MOST_SEEN", 3)
    members = Members(KEY)
    proofs = [make_proof(KEY).encode() for _ in range(4)]
    assert all(map(members.proves, proofs))
    assert [members.proves(proof) for proof in reversed(proofs)] == [False, False, False, True]
