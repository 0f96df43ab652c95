"""TLS over a socket: one reader, one writer, many records at a time.

trio's own SSLStream does not send the alert of a failed handshake, so the other side would only see a closed
connection and could not say that the secrets differ. It gives one record (16 KiB) to each read, and checkpoints after
what did not block: 320 us a round trip against 210 (two busy cores). Here one read is one turn of the scheduler, and a
write that the kernel takes at once is none.
"""

import contextlib
import os
import ssl

import trio

from termite.engine.errors import ConnectionLost, Reason, UserError

HANDSHAKE_S = 10.0
READ_BYTES = 64 * 1024  # what is read at once stays in the processor's cache: 256 KiB are slower
_OTHER_SECRET = {"TLSV1_ALERT_UNKNOWN_CA", "TLSV1_ALERT_DECRYPT_ERROR"}
_OTHER_TIME = {"SSLV3_ALERT_BAD_CERTIFICATE", "SSLV3_ALERT_CERTIFICATE_EXPIRED"}
_NO_CERTIFICATE = {"PEER_DID_NOT_RETURN_A_CERTIFICATE", "TLSV13_ALERT_CERTIFICATE_REQUIRED"}
_NOT_VALID_NOW = {9, 10}  # X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED


class TlsStream(trio.abc.Stream):
    """A TLS connection after its handshake. One task may read while one other writes."""

    is_client: bool

    def __init__(self, transport: trio.SocketStream, context: ssl.SSLContext, server_name: str | None) -> None:
        self.is_client = server_name is not None
        self._transport = transport
        self._socket = transport.socket
        self._buffer = bytearray(READ_BYTES)
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._unsent = b""
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_side=not self.is_client, server_hostname=server_name
        )

    async def shake_hands(self, peer: str) -> None:
        """UserError, a line for a person, if the other side is not of the cluster; ConnectionLost if it is gone."""
        with trio.move_on_after(HANDSHAKE_S) as patience:
            try:
                await self._shake_hands()
            except (ssl.SSLEOFError, ssl.SSLZeroReturnError) as error:
                raise ConnectionLost(f"{peer} closed the connection during the handshake") from error
            except ssl.SSLError as error:
                raise refusal(error, peer) from error
            except trio.BrokenResourceError as error:
                raise ConnectionLost(f"{peer} broke the connection during the handshake") from error
        if patience.cancelled_caught:
            raise ConnectionLost(f"{peer} did not finish the handshake in {HANDSHAKE_S:.0f} s")

    async def _shake_hands(self) -> None:
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._send_pending()
                await self._receive_pending()
            except ssl.SSLError:
                with contextlib.suppress(trio.BrokenResourceError):
                    await self._send_pending()  # the alert, which tells the other side why
                raise
            else:
                await self._send_pending()
                return

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """All that is there, up to `max_bytes`; nothing at the end of the connection."""
        size = max_bytes or READ_BYTES
        while True:
            try:
                first = self._tls.read(size)
            except ssl.SSLWantReadError:
                await self._receive_pending()
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return b""
            except ssl.SSLError as error:
                raise trio.BrokenResourceError(str(error.reason)) from error
            else:
                return self._with_more_records(first, size)

    def _with_more_records(self, first: bytes, size: int) -> bytes:
        if not first or not (self._incoming.pending or self._tls.pending()):
            return first
        records, room = [first], size - len(first)
        while room > 0:
            try:
                record = self._tls.read(room)
            except ssl.SSLError:
                break  # no whole record left, or an end that the next call reports
            if not record:
                break
            records.append(record)
            room -= len(record)
        return b"".join(records)

    def send_nowait(self, data: bytes) -> bool:
        """Whether the kernel took all of it at once; what it did not take goes with the next `send_all`."""
        try:
            if data:
                self._tls.write(data)  # to memory: whole, and at once
        except ssl.SSLError as error:
            raise trio.BrokenResourceError(str(error.reason)) from error
        return self._push()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Cancelled in the middle, the connection is of no use any more."""
        if not self.send_nowait(bytes(data)):
            await self._send_pending()

    async def wait_send_all_might_not_block(self) -> None:
        await self._transport.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """No closing alert: the frames inside say themselves whether something is missing."""
        await trio.aclose_forcefully(self._transport)

    async def _send_pending(self) -> None:
        while not self._push():
            await trio.lowlevel.wait_writable(self._socket)

    def _push(self) -> bool:
        """Give the kernel what it takes; whether that is all."""
        if self._outgoing.pending:
            self._unsent += self._outgoing.read()
        unsent = memoryview(self._unsent)
        try:
            while unsent:
                unsent = unsent[os.write(self._socket.fileno(), unsent) :]
        except BlockingIOError:
            return False
        except OSError as error:
            raise trio.BrokenResourceError(error.strerror) from error
        finally:
            self._unsent = bytes(unsent)
        return True

    async def _receive_pending(self) -> None:
        await trio.lowlevel.wait_readable(self._socket)
        try:
            size = os.readv(self._socket.fileno(), [self._buffer])
        except BlockingIOError:
            return
        except OSError as error:
            raise trio.BrokenResourceError(error.strerror) from error
        if size:
            self._incoming.write(memoryview(self._buffer)[:size])
        else:
            self._incoming.write_eof()


def refusal(error: ssl.SSLError, peer: str) -> UserError:
    """What a person should read about a failed handshake."""
    reason = error.reason or ""
    verdict = error.verify_code if isinstance(error, ssl.SSLCertVerificationError) else None
    if verdict in _NOT_VALID_NOW or reason in _OTHER_TIME:
        return UserError(
            f"{peer}: the clocks of the two machines differ by more than a day",
            hint="set the clocks",
            reason=Reason.CLOCKS_DIFFER,
        )
    if verdict is not None or reason in _OTHER_SECRET:
        return UserError(
            f"{peer}: the other side has another secret",
            hint="copy one secret file to every machine",
            reason=Reason.NOT_TRUSTED,
        )
    if reason in _NO_CERTIFICATE:
        return UserError(
            f"{peer}: the other side shows no certificate",
            hint="it is not a termite with this secret",
            reason=Reason.NOT_TRUSTED,
        )
    return UserError(
        f"{peer}: the other side is not a termite ({reason.lower().replace('_', ' ')})", reason=Reason.NOT_TRUSTED
    )
