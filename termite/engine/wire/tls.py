"""Encrypt a connection with TLS, for one reader and one writer.

trio's own SSLStream does not send the alert of a failed handshake. The other side would then only
see a closed connection, and could not tell its user that the secrets differ.

SSLStream also returns one record (16 KiB) per read, and yields to the scheduler after calls that
did not block. A round trip takes 320 us with it, instead of 210 us (two busy cores). In this module
a read takes one turn of the scheduler, and a write that the kernel accepts immediately takes none.
"""

import contextlib
import ssl

import trio

from termite.engine.errors import ConnectionLost, Reason, UserError
from termite.engine.wire import wire_calls
from termite.engine.wire.silence_watch import LinkProgress, read_progress

HANDSHAKE_S = 10.0  # of a client: the worker may have to start a mirror first
STRANGER_S = 3.0  # of a server, whose client has begun already
READ_BYTES = 64 * 1024  # of one read: they stay in the processor's cache, and 256 KiB are slower
_OTHER_SECRET = {"TLSV1_ALERT_UNKNOWN_CA", "TLSV1_ALERT_DECRYPT_ERROR"}
_OTHER_TIME = {"SSLV3_ALERT_BAD_CERTIFICATE", "SSLV3_ALERT_CERTIFICATE_EXPIRED"}
_NO_CERTIFICATE = {"PEER_DID_NOT_RETURN_A_CERTIFICATE", "TLSV13_ALERT_CERTIFICATE_REQUIRED"}
_OTHER_ROLE = "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE"
_OTHER_PURPOSE = 26  # X509_V_ERR_INVALID_PURPOSE
_OTHER_NAME = 62  # X509_V_ERR_HOSTNAME_MISMATCH
_NOT_VALID_NOW = {9, 10}  # X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED


class TlsStream(trio.abc.Stream):
    """A TLS connection. One task may read while another one writes.

    Call `shake_hands` first. A stream is the client if it has a `server_name`; None: the server.
    Errors of the connection are raised as trio.BrokenResourceError.
    """

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
        """Perform the TLS handshake; `peer` names the other side in errors.

        Raise UserError if the other side is not a member of the cluster, and ConnectionLost if it
        is gone or takes longer than HANDSHAKE_S, as a client than STRANGER_S.
        """
        limit_s = HANDSHAKE_S if self.is_client else STRANGER_S
        with trio.move_on_after(limit_s) as patience:
            try:
                await self._shake_hands()
            except (ssl.SSLEOFError, ssl.SSLZeroReturnError) as error:
                raise ConnectionLost(f"{peer} closed the connection during the handshake") from error
            except ssl.SSLError as error:
                raise refusal(error, peer) from error
            except trio.BrokenResourceError as error:
                raise ConnectionLost(f"{peer} broke the connection during the handshake") from error
        if patience.cancelled_caught:
            raise ConnectionLost(f"{peer} did not finish the handshake in {limit_s:.0f} s")

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
        """Wait for data and return all that has arrived, or b"" at the end of the connection.

        The result has at most `max_bytes` bytes; None stands for READ_BYTES.
        """
        size = max_bytes or READ_BYTES
        while True:
            if not self._has_input:  # a read would find nothing, and its error costs as much as a record
                await self._receive_pending()
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
        if not first or not self._has_input:
            return first
        records, room = [first], size - len(first)
        while room > 0 and self._has_input:
            try:
                record = self._tls.read(room)
            except ssl.SSLError:
                break  # no complete record is left, or the next call reports an end
            if not record:
                break
            records.append(record)
            room -= len(record)
        return b"".join(records)

    @property
    def _has_input(self) -> bool:
        """True if a read may find something. OpenSSL keeps parts of records, which are nothing."""
        return bool(self._incoming.pending or self._tls.pending())

    def send_nowait(self, data: bytes) -> bool:
        """Send as much as the kernel accepts without blocking. Return True if that is everything.

        The rest is sent by the next `send_all`.
        """
        try:
            if data:
                self._tls.write(data)  # to memory, which never blocks and takes everything
        except ssl.SSLError as error:
            raise trio.BrokenResourceError(str(error.reason)) from error
        return self._push()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send `data` and wait until the kernel has accepted it.

        If the caller is cancelled meanwhile, the connection cannot be used any more.
        """
        if not self.send_nowait(bytes(data)):
            await self._send_pending()

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the socket accepts data."""
        await self._transport.wait_send_all_might_not_block()

    def progress(self) -> LinkProgress:
        """Return how far the kernels of the two machines are."""
        return read_progress(self._socket)

    async def aclose(self) -> None:
        """Close the connection without the closing alert of TLS.

        The alert is not needed, because frames show whether data is missing at the end.
        """
        await trio.aclose_forcefully(self._transport)

    async def _send_pending(self) -> None:
        while not self._push():
            await trio.lowlevel.wait_writable(self._socket)

    def _push(self) -> bool:
        """Send as much as the kernel accepts without blocking. Return True if nothing is left."""
        if self._outgoing.pending:
            self._unsent += self._outgoing.read()
        unsent = memoryview(self._unsent)
        try:
            while unsent:
                unsent = unsent[wire_calls.write(self._socket.fileno(), unsent) :]
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
            size = wire_calls.readv(self._socket.fileno(), [self._buffer])
        except BlockingIOError:
            return
        except OSError as error:
            raise trio.BrokenResourceError(error.strerror) from error
        if size:
            self._incoming.write(memoryview(self._buffer)[:size])
        else:
            self._incoming.write_eof()


def why_broken(error: BaseException) -> str:
    """Return the reason of an error of a stream, for people."""
    cause = error.__cause__
    return (isinstance(cause, OSError) and cause.strerror) or str(error) or "broken"


def refusal(error: ssl.SSLError, peer: str) -> UserError:
    """Return the error that tells the user why the handshake with `peer` failed."""
    reason = error.reason or ""
    verdict = error.verify_code if isinstance(error, ssl.SSLCertVerificationError) else None
    if verdict in _NOT_VALID_NOW or reason in _OTHER_TIME:
        return UserError(
            f"{peer}: the clocks of the two machines differ by more than an hour",
            hint="set the clocks of both machines, with NTP for example",
            reason=Reason.CLOCKS_DIFFER,
        )
    if verdict == _OTHER_NAME:
        return UserError(
            f"{peer}: the other side is no coordinator of this version of termite",
            hint="start termite-coordinator there, and install one version of termite on every machine",
            reason=Reason.NOT_TRUSTED,
        )
    if verdict == _OTHER_PURPOSE or reason == _OTHER_ROLE:
        return UserError(
            f"{peer}: a certificate of this cluster is used in a role that it was not made for",
            hint="somebody may have stolen the certificate: find out which program is at the other address",
            reason=Reason.NOT_TRUSTED,
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
            hint="every termite daemon with this secret shows one",
            reason=Reason.NOT_TRUSTED,
        )
    return UserError(
        f"{peer}: the other side is not a termite daemon ({reason.lower().replace('_', ' ')})",
        reason=Reason.NOT_TRUSTED,
    )
