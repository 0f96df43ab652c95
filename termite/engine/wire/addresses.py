"""Addresses: `host:port` texts, and the sockets that a daemon listens on."""

import errno

import trio

from termite.engine.errors import UserError

ALL = ""  # every address of this machine


def split_address(address: str, default_port: int) -> tuple[str, int]:
    """`host`, `host:port`, `:port`, `[v6]:port`."""
    host, colon, port = address.rpartition(":")
    if not colon or "]" in port or (":" in host and not host.startswith("[")):
        host, port = address, str(default_port)
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise UserError(f"{address!r} is no address", hint=f"write HOST:PORT, such as localhost:{default_port}")
    return host.removeprefix("[").removesuffix("]"), int(port)


def join_address(host: str, port: int) -> str:
    """The inverse of `split_address`."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def listen(host: str, port: int, what: str) -> list[trio.SocketListener]:
    """Listen on `host` (ALL: everywhere), port 0: a free one. `what` names the daemon in the line of an error."""
    if host == ALL and port == 0:
        host = "0.0.0.0"  # one port for one family, instead of another one for each
    try:
        return list(await trio.open_tcp_listeners(port, host=host or None))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            hint = f"another {what} runs here already? choose another port with -port"
            raise UserError(f"port {port} is in use", hint=hint) from error
        reason = error.strerror or str(error)
        raise UserError(f"cannot listen on {join_address(host, port)}: {reason}", hint="see -listen, -port") from error


def port_of(listeners: list[trio.SocketListener]) -> int:
    """The port that was chosen."""
    port: int = listeners[0].socket.getsockname()[1]
    return port
