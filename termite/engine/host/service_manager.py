"""Notify the program that runs this daemon as a service, such as systemd with `Type=notify`.

The protocol is that of sd_notify(3): one datagram with lines NAME=VALUE, to the Unix socket that
$NOTIFY_SOCKET names. An address that begins with "@" is an abstract one.
"""

import logging
import os
import socket
from collections.abc import MutableMapping

import trio

VARIABLE = "NOTIFY_SOCKET"
READY_S = 5.0

log = logging.getLogger(__name__)


class ServiceManager:
    """A service manager that wants to be notified, or nobody if `address` is ""."""

    def __init__(self, address: str) -> None:
        self._address = address

    async def notify_ready(self, status: str) -> None:
        """Say that the daemon serves. Wait up to READY_S for a manager that is busy. Never raises.

        `status` is a line for people. systemd shows it to every user of the machine.
        """
        if not self._address:
            return
        try:
            with trio.fail_after(READY_S), trio.socket.from_stdlib_socket(self._connect()) as notifier:
                await notifier.send(f"READY=1\nSTATUS={' '.join(status.split())}".encode())
        except (OSError, trio.TooSlowError) as error:  # the daemon serves nevertheless
            _warn(error)

    def notify_stopping(self) -> None:
        """Say that the daemon ends. Never blocks, never raises: a busy manager may miss it."""
        if not self._address:
            return
        try:
            with self._connect() as notifier:
                notifier.send(b"STOPPING=1")
        except OSError as error:
            _warn(error)

    def _connect(self) -> socket.socket:
        """Return a socket that does not block. A connected one tells when it can send again."""
        address = f"\0{self._address[1:]}" if self._address.startswith("@") else self._address
        notifier = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        try:
            notifier.setblocking(False)
            notifier.connect(address)
        except OSError:
            notifier.close()
            raise
        return notifier


def _warn(error: OSError | trio.TooSlowError) -> None:
    reason = error.strerror or error if isinstance(error, OSError) else "timed out"
    log.warning("service-manager-not-notified reason=%s", reason)


NOBODY = ServiceManager("")


def take_service_manager(env: MutableMapping[str, str] = os.environ) -> ServiceManager:
    """Return the service manager that `env` names. Remove it there: no child may speak for us."""
    return ServiceManager(env.pop(VARIABLE, ""))
