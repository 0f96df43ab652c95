"""The hosts that this user has added over ssh: their addresses, and the list of them.

The list is a file in the user's state directory, mode 0600. It names the file with the secret of a
farm, and does not have the secret. A host that is being added stands there before anything is
changed on it, so that it can always be removed.
"""

import fcntl
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from termite.cli.places import STATE, own_directory
from termite.engine.errors import UserError
from termite.engine.wire.addresses import join_address, split_address

SCHEME = "ssh://"
# Neither begins with a dash, which ssh would take for an option.
_USER = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.+-]*")
_HOST = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.-]*|[0-9a-fA-F:.]+(%[A-Za-z0-9_.-]+)?")
_SSH_PORT = 22


@dataclass(frozen=True, slots=True)
class HostAddress:
    """An address `ssh://[user@]host[:port]`. `user` is "" and `port` 0 where ssh chooses them."""

    user: str
    host: str
    port: int

    @property
    def name(self) -> str:
        """The name of the worker there: the address without its scheme."""
        host = join_address(self.host, self.port) if self.port else self.host
        return f"{self.user}@{host}" if self.user else host

    @property
    def text(self) -> str:
        """The whole address, in the one way in which the list has it."""
        return SCHEME + self.name

    @property
    def words(self) -> list[str]:
        """The words by which ssh knows the host: its port, and then the destination."""
        destination = f"{self.user}@{self.host}" if self.user else self.host
        return [*(["-p", str(self.port)] if self.port else []), "--", destination]


def parse_host_address(text: str) -> HostAddress:
    """Parse an address. Raise UserError if it is none."""
    wrong = UserError(f"{text!r} is no address of a host", hint="write ssh://HOST, or ssh://USER@HOST:PORT")
    if not text.startswith(SCHEME):
        raise wrong
    user, at, place = text.removeprefix(SCHEME).rstrip("/").rpartition("@")
    try:
        host, port = split_address(place, _SSH_PORT)
    except UserError as error:
        raise wrong from error
    if (at and not _USER.fullmatch(user)) or not _HOST.fullmatch(host):
        raise wrong
    has_port = place not in (host, f"[{host}]")
    return HostAddress(user, host, port if has_port else 0)


class AddedHost(msgspec.Struct, frozen=True):
    """A host that was added. `coordinator` and `secret` are those of its farm, as seen from here.

    `flags` are those of the worker, and `digest` is that of its bundle, of the version `release`.
    """

    address: str
    coordinator: str
    secret: str
    flags: tuple[str, ...] = ()
    release: str = ""
    digest: str = ""

    @property
    def name(self) -> str:
        """The name of the worker."""
        return self.address.removeprefix(SCHEME)


class HostList(msgspec.Struct, frozen=True):
    """The list of a user. Hosts know by `owner_id` whose worker theirs is."""

    owner_id: str
    hosts: tuple[AddedHost, ...] = ()

    def find(self, address: str) -> AddedHost | None:
        """Return the entry of a host, or None."""
        return next((one for one in self.hosts if one.address == address), None)

    def with_host(self, host: AddedHost) -> "HostList":
        """Return the list with one entry more, or another one for this host."""
        others = (one for one in self.hosts if one.address != host.address)
        return HostList(self.owner_id, tuple(sorted((*others, host), key=lambda one: one.address)))

    def without(self, address: str) -> "HostList":
        """Return the list without a host."""
        return HostList(self.owner_id, tuple(one for one in self.hosts if one.address != address))


def read_hosts() -> HostList:
    """Return the list, which may be empty. Raise UserError if it cannot be read."""
    return _read(_list_path())


def added_hosts() -> tuple[AddedHost, ...]:
    """Return the hosts of the list, or none if it cannot be read: other commands only show them."""
    try:
        return read_hosts().hosts
    except UserError:
        return ()


@contextmanager
def changed_hosts() -> Iterator[list[HostList]]:
    """Yield a list whose one item is the list of hosts, and write the item that stands there then.

    Other programs of this user wait meanwhile. Raise UserError if that is impossible.
    """
    path = _list_path()
    try:
        with open(os.open(path.with_suffix(".lock"), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            box = [_read(path)]
            yield box
            _write(path, box[0])
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}", hint="make room there, or see its mode") from error


def _list_path() -> Path:
    return own_directory(STATE) / "hosts.json"


def _read(path: Path) -> HostList:
    try:
        return msgspec.json.decode(path.read_bytes(), type=HostList)
    except FileNotFoundError:
        return HostList(secrets.token_hex(16))
    except msgspec.MsgspecError as error:
        raise UserError(f"{path} is no list of hosts: {error}", hint="mend it, or remove it") from error
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}", hint="see its mode") from error


def _write(path: Path, hosts: HostList) -> None:
    new = path.with_suffix(".new")
    new.unlink(missing_ok=True)
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(hosts)))
    new.replace(path)
