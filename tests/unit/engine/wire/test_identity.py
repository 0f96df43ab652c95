"""Test secrets and certificates, and the errors of both sides if these do not match."""

import datetime
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from cryptography import x509
from trio.testing import MockClock

from termite.engine.errors import ConnectionLost, TermiteError, UserError
from termite.engine.wire.authority import Role, mint
from termite.engine.wire.identity import COORDINATOR_NAME, SERVER_NAME
from termite.engine.wire.tls import TlsStream

SECRET = b"sixteen bytes at least"
OTHER = b"another secret, as long"


async def sockets() -> tuple[trio.SocketStream, trio.SocketStream]:
    ours, theirs = trio.socket.socketpair()
    return trio.SocketStream(ours), trio.SocketStream(theirs)


async def shake(stream: TlsStream, peer: str, errors: dict[str, TermiteError]) -> None:
    try:
        await stream.shake_hands(peer)
    except TermiteError as error:
        errors[peer] = error


async def errors_of_handshake(
    client: ssl.SSLContext, server: ssl.SSLContext, name: str = SERVER_NAME
) -> dict[str, TermiteError]:
    """Return the errors of both sides of a handshake.

    With TLS 1.3, the client reads the server's verdict with its first read.
    """
    ours, theirs = await sockets()
    errors: dict[str, TermiteError] = {}
    async with ours, theirs, trio.open_nursery() as nursery:
        nursery.start_soon(shake, TlsStream(ours, client, name), "server", errors)
        nursery.start_soon(shake, TlsStream(theirs, server, None), "client", errors)
    return errors


@asynccontextmanager
async def secured() -> AsyncIterator[tuple[TlsStream, TlsStream]]:
    ours, theirs = await sockets()
    client = TlsStream(ours, mint(SECRET, "c", Role.CLIENT).client_context(), SERVER_NAME)
    server = TlsStream(theirs, mint(SECRET, "s", Role.MIRROR).server_context(), None)
    async with ours, theirs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.shake_hands, "server")
            nursery.start_soon(server.shake_hands, "client")
        yield client, server


def test_every_node_derives_the_same_authority() -> None:
    one, two = mint(SECRET, "one", Role.MIRROR), mint(SECRET, "two", Role.MIRROR)
    assert one.authority == two.authority
    assert one.authority != mint(OTHER, "one", Role.MIRROR).authority
    assert one.key != two.key
    assert one.certificate != two.certificate


@pytest.mark.parametrize(
    ("role", "validity"),
    [
        (Role.CLIENT, datetime.timedelta(days=30)),
        (Role.COORDINATOR, datetime.timedelta(days=30)),
        (Role.MIRROR, datetime.timedelta(hours=1)),
    ],
)
def test_a_certificate_is_short_lived_and_forgives_a_slow_clock(role: Role, validity: datetime.timedelta) -> None:
    certificate = x509.load_pem_x509_certificate(mint(SECRET, "n" * 200, role).certificate.encode())
    now = datetime.datetime.now(datetime.UTC)
    assert certificate.not_valid_before_utc < now - datetime.timedelta(hours=23)
    assert now + 0.9 * validity < certificate.not_valid_after_utc < now + 1.1 * validity


async def test_two_of_one_secret_understand_each_other() -> None:
    async with secured() as (client, server), trio.open_nursery() as nursery:
        content = bytes(range(256)) * 4096 * 4
        nursery.start_soon(client.send_all, content)
        received = b""
        while len(received) < len(content):
            received += await server.receive_some()
        assert received == content


async def test_one_end_sees_that_the_other_has_closed() -> None:
    async with secured() as (client, server):
        await client.send_all(b"the last words")
        await client.aclose()
        assert await server.receive_some() == b"the last words"
        assert await server.receive_some() == b""


@pytest.mark.attack
async def test_another_secret_is_one_clear_line_on_both_sides() -> None:
    errors = await errors_of_handshake(
        mint(SECRET, "c", Role.CLIENT).client_context(), mint(OTHER, "s", Role.MIRROR).server_context()
    )
    assert {peer: str(error) for peer, error in errors.items()} == {
        "server": "server: the other side has another secret (copy one secret file to every machine)",
        "client": "client: the other side has another secret (copy one secret file to every machine)",
    }
    assert all(isinstance(error, UserError) for error in errors.values())


@pytest.mark.attack
async def test_a_client_without_a_certificate_is_refused() -> None:
    stranger = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    stranger.load_verify_locations(cadata=mint(SECRET, "s", Role.MIRROR).authority)
    errors = await errors_of_handshake(stranger, mint(SECRET, "s", Role.MIRROR).server_context())
    assert "shows no certificate" in str(errors["client"])


@pytest.mark.attack
@pytest.mark.parametrize("client", [Role.MIRROR, Role.COORDINATOR])
async def test_the_certificate_of_a_server_opens_no_connection(client: Role) -> None:
    """Test what a job could do that has stolen the certificate of its mirror."""
    errors = await errors_of_handshake(
        mint(SECRET, "stolen", client).client_context(), mint(SECRET, "s", Role.COORDINATOR).server_context()
    )
    assert "a role that it was not made for" in str(errors["client"])


@pytest.mark.attack
async def test_the_certificate_of_a_client_serves_nobody() -> None:
    errors = await errors_of_handshake(
        mint(SECRET, "c", Role.CLIENT).client_context(), mint(SECRET, "stolen", Role.CLIENT).server_context()
    )
    assert "a role that it was not made for" in str(errors["server"])


@pytest.mark.attack
@pytest.mark.parametrize(("role", "is_taken"), [(Role.COORDINATOR, True), (Role.MIRROR, False)])
async def test_only_the_certificate_of_a_coordinator_makes_a_coordinator(role: Role, *, is_taken: bool) -> None:
    """Test what a job could do that has stolen the certificate of its mirror, and redirects us."""
    errors = await errors_of_handshake(
        mint(SECRET, "c", Role.CLIENT).client_context(), mint(SECRET, "s", role).server_context(), COORDINATOR_NAME
    )
    assert ("no coordinator of this version" in str(errors.get("server"))) is not is_taken


@pytest.mark.attack
async def test_older_tls_is_refused() -> None:
    old = mint(SECRET, "c", Role.CLIENT).client_context()
    old.minimum_version = ssl.TLSVersion.TLSv1_2
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    errors = await errors_of_handshake(old, mint(SECRET, "s", Role.MIRROR).server_context())
    assert isinstance(errors["client"], UserError)
    assert isinstance(errors["server"], UserError)


@pytest.mark.parametrize("age", [datetime.timedelta(days=100), datetime.timedelta(days=-100)])
async def test_clocks_far_apart_are_named_on_both_sides(age: datetime.timedelta) -> None:
    then = datetime.datetime.now(datetime.UTC) - age
    mine, theirs = (
        mint(SECRET, "c", Role.CLIENT).client_context(),
        mint(SECRET, "s", Role.MIRROR, then).server_context(),
    )
    errors = await errors_of_handshake(mine, theirs)
    assert "clocks" in str(errors["server"])
    assert "clocks" in str(errors["client"])


@pytest.mark.attack
@pytest.mark.parametrize("said", [b"GET / HTTP/1.1\r\n\r\n", b"\0" * 50, b"\x16\x03\x01\xff\xff", b"SSH-2.0-x\r\n"])
async def test_who_does_not_speak_tls_is_told_apart(said: bytes) -> None:
    ours, theirs = await sockets()
    async with theirs:
        server = TlsStream(theirs, mint(SECRET, "s", Role.MIRROR).server_context(), None)
        async with ours:
            await ours.send_all(said)
        with pytest.raises((UserError, ConnectionLost), match=r"not a termite|closed the connection"):
            await server.shake_hands("somebody")


@pytest.mark.attack
async def test_who_says_nothing_is_left_after_three_seconds(autojump_clock: MockClock) -> None:
    ours, theirs = await sockets()
    async with ours, theirs:
        server = TlsStream(theirs, mint(SECRET, "s", Role.MIRROR).server_context(), None)
        with pytest.raises(ConnectionLost, match="did not finish the handshake in 3 s"):
            await server.shake_hands("somebody")


@pytest.mark.attack
async def test_rubbish_after_the_handshake_breaks_the_connection() -> None:
    async with secured() as (client, server):
        await client._transport.send_all(b"\x17\x03\x03\x00\x20" + b"x" * 32)
        with pytest.raises(trio.BrokenResourceError):
            await server.receive_some()
