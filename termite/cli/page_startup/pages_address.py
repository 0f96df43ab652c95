"""The address at which pages are served: parse it, listen on it, say it to people.

This module imports nothing of the server, which is an extra that may not be installed.
"""

import importlib.util
import ipaddress
import secrets
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from termite.engine.errors import UserError

PACKAGES = ("starlette", "hypercorn", "prometheus_client")
TOKEN_BYTES = 16
LOCALHOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class PageAddress:
    """A host name or address, and a port; 0: any free one."""

    host: str
    port: int

    @property
    def shown_host(self) -> str:
        """The host as it stands in the address of a page."""
        return f"[{self.host}]" if ":" in self.host else self.host

    @property
    def is_loopback(self) -> bool:
        """True if only this machine reaches the address."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def browser_host(self, names: Sequence[str]) -> str:
        """Return the host by which browsers reach the pages.

        It is the address itself. If others reach it, too, the first of `names` comes first, and the
        name of this machine replaces an address that stands for all.
        """
        if names and not self.is_loopback:
            return names[0]
        try:
            is_any = ipaddress.ip_address(self.host).is_unspecified
        except ValueError:
            is_any = False
        return socket.gethostname() if is_any else self.shown_host


def page_url(host: str, port: int, token: str) -> str:
    """Return the address of the front page, with its token."""
    return f"http://{host}:{port}/?token={token}"


def parse_page_address(text: str, example: int) -> PageAddress:
    """Parse `[HOST:]PORT`. Raise UserError, with a port as an example, if it is none."""
    host, _, port = text.rpartition(":")
    if not (port.isascii() and port.isdecimal() and int(port) < 65536):
        raise UserError(f"-http is [HOST:]PORT, not {text}", hint=f"such as -http {LOCALHOST}:{example}")
    return PageAddress(host.removeprefix("[").removesuffix("]") or LOCALHOST, int(port))


def require_packages() -> None:
    """Raise UserError, which says what to install, if the packages for pages are missing."""
    for name in PACKAGES:
        if importlib.util.find_spec(name) is None:
            raise UserError(
                f"the pages need Python packages that are not installed: {name}", hint="pip install termite[web]"
            )


def new_token() -> str:
    """Return a token that nobody can guess."""
    return secrets.token_urlsafe(TOKEN_BYTES)


def open_listener(address: PageAddress) -> socket.socket:
    """Listen on an address. Raise UserError if that is impossible."""
    host, port = address.host, address.port
    try:
        family, _, _, _, found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(found)
        listening.listen()
    except OSError as error:
        raise UserError(
            f"cannot listen on {host}:{port}: {error.strerror}", hint="choose another one with -http HOST:PORT"
        ) from error
    return listening
