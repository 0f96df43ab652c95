"""Prove with the first bytes of a connection that this side has the cluster's secret.

Who connects puts a *proof* into the hello of the handshake: a number that is used once, and its
HMAC by a key that is derived from the secret. It stands there as the name of an application
protocol (ALPN, RFC 7301), which a server of TLS ignores if it knows none. A daemon finds it in the
hello without parsing, before it does anything for the connection.

A proof decides who is served first, and nothing else: certificates show who is a member. Somebody
who sees the traffic can send a proof again. Each daemon therefore takes it once.
"""

import hmac
import re

MOST_SEEN = 10_000  # proofs that a daemon remembers, of some 100 bytes each
NONCE_BYTES = 16
_FORM = re.compile(rb"termite-member-([0-9a-f]{32})-([0-9a-f]{64})")


def make_proof(member_key: bytes, nonce: bytes) -> str:
    """Return a proof of membership, as the name of an application protocol.

    `nonce` are NONCE_BYTES random bytes, which nobody has used before.
    """
    number = nonce.hex()
    return f"termite-member-{number}-{_tag(member_key, number.encode())}"


class Members:
    """The proofs that one daemon has seen, made with `member_key`."""

    def __init__(self, member_key: bytes) -> None:
        self._key = member_key
        self._seen: dict[bytes, None] = {}  # the oldest first

    def proves(self, hello: bytes) -> bool:
        """Return whether a hello has a proof that is right and new. It counts once."""
        found = _FORM.search(hello)
        if found is None or found[1] in self._seen:
            return False
        if not hmac.compare_digest(_tag(self._key, found[1]).encode(), found[2]):
            return False
        self._seen[found[1]] = None
        if len(self._seen) > MOST_SEEN:
            del self._seen[next(iter(self._seen))]
        return True


def _tag(member_key: bytes, nonce: bytes) -> str:
    return hmac.digest(member_key, nonce, "sha256").hex()
