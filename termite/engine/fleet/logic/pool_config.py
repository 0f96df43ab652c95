"""The settings of a pool of leases."""

from dataclasses import dataclass, field

from termite.engine.model import MachineFacts


@dataclass(frozen=True, slots=True)
class PoolConfig:
    """The settings of a pool.

    `coordinator` is a host and a port. All leases together get at most `slots`; 0 means no limit.
    Jobs see `uid` and `gid` as their own ids, and may leave files in the directories `temporary`.
    `groups` are other groups of the user.
    An idle lease is closed after `keepalive_s`. No other user knows `owner`, from which workers get
    keys (OpenLease). Workers of another architecture than that of `machine` get no lease. `user` is
    `user@host`, for people.
    """

    coordinator: tuple[str, int]
    secret: bytes
    master: str
    slots: int
    uid: int
    gid: int
    writable_root: bytes
    owner: bytes
    keepalive_s: float = 60.0
    temporary: tuple[bytes, ...] = ()
    groups: tuple[int, ...] = ()
    user: str = ""
    machine: MachineFacts = field(default_factory=MachineFacts)
