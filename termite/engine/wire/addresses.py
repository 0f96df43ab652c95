"""Parse addresses such as `host:port`, and open the sockets that a daemon listens on.

An IPv6 address stands in brackets if a port follows it, and without them otherwise.
"""

import errno

import trio

from termite.engine.errors import UserError

ALL = ""  # every address of this machine


def split_address(address: str, default_port: int) -> tuple[str, int]:
    """Return the host and the port of `host`, `host:port`, `:port` or `[v6]:port`.

    The host of `:port` is "". Raise UserError if `address` has no other form, or no valid port.
    """
    host, colon, port = address.rpartition(":")
    if not colon or "]" in port or (":" in host and not host.startswith("[")):
        host, port = address, str(default_port)
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise UserError(f"{address!r} is not an address", hint=f"write HOST:PORT, such as localhost:{default_port}")
    return host.removeprefix("[").removesuffix("]"), int(port)


def join_address(host: str, port: int) -> str:
    """Return the text from which `split_address` makes this host and port."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def listen(host: str, port: int, what: str) -> list[trio.SocketListener]:
    """Listen on `host`, or on every address of this machine if it is ALL.

    Port 0 stands for a free port. Raise UserError, in which `what` names the daemon, if the
    address cannot be used.
    """
    if host == ALL and port == 0:
        host = "0.0.0.0"  # otherwise each address family would get another free port
    try:
        return list(await trio.open_tcp_listeners(port, host=host or None))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            hint = f"if another {what} already runs on this machine, choose another port with -port"
            raise UserError(f"port {port} is in use", hint=hint) from error
        reason = error.strerror or str(error)
        raise UserError(f"cannot listen on {join_address(host, port)}: {reason}", hint="see -listen, -port") from error


def port_of(listeners: list[trio.SocketListener]) -> int:
    """Return the port of these listeners, which all have the same."""
    port: int = listeners[0].socket.getsockname()[1]
    return port
