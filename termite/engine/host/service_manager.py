"""Notify the program that runs this daemon as a service, such as systemd with `Type=notify`.

The protocol is that of sd_notify(3): one datagram with lines NAME=VALUE, to the Unix socket that
$NOTIFY_SOCKET names. An address that begins with "@" is an abstract one.
"""

import logging
import os
import socket
from collections.abc import MutableMapping

VARIABLE = "NOTIFY_SOCKET"

log = logging.getLogger(__name__)


class ServiceManager:
    """A service manager that wants to be notified, or nobody if `address` is ""."""

    def __init__(self, address: str) -> None:
        self._address = address

    def notify_ready(self, status: str) -> None:
        """Say that the daemon serves. `status` is a line for people. Never blocks, never raises."""
        self._notify(f"READY=1\nSTATUS={' '.join(status.split())}")

    def notify_stopping(self) -> None:
        """Say that the daemon ends. Never blocks, never raises."""
        self._notify("STOPPING=1")

    def _notify(self, state: str) -> None:
        if not self._address:
            return
        address = f"\0{self._address[1:]}" if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notifier:
                notifier.setblocking(False)
                notifier.sendto(state.encode(), address)
        except OSError as error:  # the daemon serves nevertheless
            log.warning("service-manager-not-notified reason=%s", error.strerror or error)


NOBODY = ServiceManager("")


def take_service_manager(env: MutableMapping[str, str] = os.environ) -> ServiceManager:
    """Return the service manager that `env` names. Remove it there: no child may speak for us."""
    return ServiceManager(env.pop(VARIABLE, ""))
