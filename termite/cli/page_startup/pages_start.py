"""The schema of the line that a coordinator sends to the process of its pages at its start."""

import msgspec


class PagesStart(msgspec.Struct, frozen=True):
    """Everything that the process of the pages needs; it comes as one line of JSON.

    `coordinator` is a host and a port of this machine, and `name` the host for people. `secret` is
    that of the cluster, and `key` the one with which the coordinator names users. `token` lets
    browsers in that ask for one of `hosts`. `socket_fd` listens already.
    """

    coordinator: tuple[str, int]
    name: str
    secret: bytes
    key: bytes
    token: str
    hosts: tuple[str, ...]
    socket_fd: int
