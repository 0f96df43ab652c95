"""Parse addresses such as `host:port`, connect to them, and listen on them.

An IPv6 address stands in brackets if a port follows it, and without them otherwise. `inproc:NAME`
leads to a daemon in this process, without a port: each connection is a pair of sockets. An embedded
worker is reached so. Every user of the machine could keep a port of the loopback interface busy.
"""

import errno
import ipaddress
import os
from collections.abc import Sequence
from contextlib import suppress

import trio

from termite.engine.errors import ConnectionLost, UserError
from termite.engine.wire import wire_calls

ALL = ""  # every address of this machine
INPROC = "inproc:"
BACKLOG = 128
CONNECT_S = 10.0  # a machine that is off does not even refuse a connection


def split_address(address: str, default_port: int) -> tuple[str, int]:
    """Return the host and the port of `host`, `host:port`, `:port`, `[v6]:port` or `inproc:NAME`.

    The host of `:port` is "". The name of a daemon in this process is its own host, with port 0.
    Raise UserError if `address` has no such form, or no valid port.
    """
    if address.startswith(INPROC):
        return address, 0
    host, colon, port = address.rpartition(":")
    if not colon or "]" in port or (":" in host and not host.startswith("[")):
        host, port = address, str(default_port)
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 65536):
        raise UserError(
            f"{address!r} is not an address", hint=f"write HOST or HOST:PORT, such as localhost:{default_port}"
        )
    in_brackets, host = host.startswith("["), host.removeprefix("[").removesuffix("]")
    if (in_brackets or ":" in host) and not _is_ipv6(host):
        raise UserError(
            f"{address!r} is not an address", hint=f"write HOST or HOST:PORT, such as localhost:{default_port}"
        )
    return host, int(port)


def _is_ipv6(host: str) -> bool:
    try:
        ipaddress.IPv6Address(host)  # it may have a zone, as in fe80::1%eth0
    except ValueError:
        return False
    return True


def join_address(host: str, port: int) -> str:
    """Return the text from which `split_address` makes this host and port."""
    if host.startswith(INPROC):
        return host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class InprocListener(trio.abc.Listener[trio.SocketStream]):
    """Accept connections that are made in this process. `close` refuses later ones."""

    def __init__(self, name: str) -> None:
        """Make the name known. Raise UserError if it is in use."""
        if name in _listeners:
            raise UserError(f"{INPROC}{name} is in use", hint="give each daemon of a process another name")
        self._name = name
        self._connect, self._connections = trio.open_memory_channel[trio.SocketStream](BACKLOG)
        _listeners[name] = self

    async def accept(self) -> trio.SocketStream:
        """Return the next connection. Raise ClosedResourceError if the listener is closed."""
        return await self._connections.receive()

    async def connect(self) -> trio.SocketStream:
        """Return the near end of a new connection. Wait while too many are not yet accepted."""
        near, far = wire_calls.socketpair()
        try:
            await self._connect.send(trio.SocketStream(far))
        except BaseException as error:
            near.close()
            far.close()
            if isinstance(error, trio.BrokenResourceError):
                raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED)) from error
            raise
        return trio.SocketStream(near)

    async def aclose(self) -> None:
        """Close it, and the connections that nobody has accepted."""
        if _listeners.get(self._name) is self:
            del _listeners[self._name]
        with suppress(trio.WouldBlock, trio.ClosedResourceError):
            while True:
                self._connections.receive_nowait().socket.close()
        self._connections.close()
        await trio.lowlevel.checkpoint()


_listeners: dict[str, InprocListener] = {}  # by their names


async def listen(host: str, port: int, what: str) -> list[trio.abc.Listener[trio.SocketStream]]:
    """Listen on `host`, or on every address of this machine if it is ALL.

    Port 0 stands for a free port. Raise UserError, in which `what` names the daemon, if the
    address cannot be used.
    """
    if host.startswith(INPROC):
        return [InprocListener(host.removeprefix(INPROC))]
    if host == ALL and port == 0:
        host = "0.0.0.0"  # otherwise each address family would get another free port
    try:
        return list(await wire_calls.open_tcp_listeners(port, host=host or None))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            hint = f"if another {what} already runs on this machine, choose another port with -port"
            raise UserError(f"port {port} is in use", hint=hint) from error
        reason = error.strerror or str(error)
        raise UserError(f"cannot listen on {join_address(host, port)}: {reason}", hint="see -listen, -port") from error


async def connect_to(host: str, port: int, limit_s: float = CONNECT_S) -> trio.SocketStream:
    """Connect to a daemon. Raise ConnectionLost if that fails or takes longer than `limit_s`."""
    peer = join_address(host, port)
    try:
        with trio.fail_after(limit_s):
            if host.startswith(INPROC):
                return await _connect_inside(host.removeprefix(INPROC))
            return await wire_calls.open_tcp_stream(host, port)
    except trio.TooSlowError as error:
        raise ConnectionLost(f"{peer}: no connection in {limit_s:.0f} s") from error
    except OSError as error:
        raise ConnectionLost(f"{peer}: {_os_reason(error)}") from error
    except UnicodeError as error:  # the coordinator sent the address, and any worker chose its host
        raise ConnectionLost(f"{peer}: not the name of a host") from error


async def _connect_inside(name: str) -> trio.SocketStream:
    listener = _listeners.get(name)
    if listener is None:
        raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
    return await listener.connect()


def port_of(listeners: Sequence[trio.abc.Listener[trio.SocketStream]]) -> int:
    """Return the port of these listeners, which all have the same; 0 inside of this process."""
    first = listeners[0]
    return int(first.socket.getsockname()[1]) if isinstance(first, trio.SocketListener) else 0


def peer_name(stream: trio.SocketStream) -> str:
    """Return `host:port` of the other end, for people."""
    try:
        name = stream.socket.getpeername()
    except OSError:
        return "a closed connection"
    return join_address(*name[:2]) if isinstance(name, tuple) else "this process"


def _os_reason(error: OSError) -> str:
    """Return the reason of an error of open_tcp_stream.

    The function raises a group with one exception per address, in which the reason is hidden.
    """
    cause = error.__cause__
    if isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    if isinstance(cause, OSError) and cause.errno:
        error = cause
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)  # trio's own text names the address once more
    return error.strerror or str(error)
