"""Admit the connections of strangers, who have not shown a certificate yet.

Anybody who reaches the port can connect and say nothing. A *stranger* must not keep members of the
cluster from being served, and must cost next to nothing:

* A connection first waits until the beginning of a handshake has arrived. It waits in this process,
  for HELLO_S at most. If too many wait, the oldest one of the source that has most is dropped: a
  member speaks at once.
* Then it takes a turn. Only a few are examined at a time, and the queue is bounded. Connections
  whose hello proves membership have turns and a queue of their own. The others are strangers, or
  speak another version of termite; an eighth as many of them are examined. A daemon for which
  this is expensive begins with one of them in `rest_s` at most.
* A turn that is free goes to the source which has fewest. If the queue is full, the source which
  has most in it loses one at random. A source whose connections failed lately counts as if it had
  more of them.

A source is a host. A host may have as many addresses of IPv6 as it likes, all in one network of 64
bits. Therefore networks are compared first, and then the hosts of one network. A connection that
begins in this process is no stranger's. OpenSSH does the same with MaxStartups,
PerSourceMaxStartups and PerSourcePenalties.
"""

import functools
import ipaddress
import logging
import math
import random
import select
import socket
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from termite.engine.wire.identity import Members

HERE = "this process"
HELLO_S = 3.0
MAX_SILENT = 256  # connections that wait for a hello; each takes a descriptor and 8 KiB
QUEUED = 64  # connections that wait for their turn
OTHERS_SHARE = 8  # of turns, without a proof of membership
COMPLAINT_S = 60.0
PENALTY_S = 60.0  # after which a failure is forgotten
MAX_PENALTIES = 8  # of one source, and at most this many times as many sources are known
log = logging.getLogger(__name__)

_RECORD_HEAD_BYTES = 5  # of TLS: kind, version, length
_HANDSHAKE = 22
_HELLO_MAX_BYTES = 16 * 1024


class Dropped(Exception):
    """A stranger was dropped, which has been logged."""

    def __init__(self, peer: str, reason: str) -> None:
        super().__init__(reason)
        log.debug("stranger-dropped peer=%s reason=%s", peer, reason)


@dataclass(eq=False, slots=True)
class _Stranger:
    source: str
    is_ready: trio.Event = field(default_factory=trio.Event)
    is_dropped: bool = False
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)

    def drop(self) -> None:
        self.is_dropped = True
        self.scope.cancel()


class _Turns:
    """The turns of one kind of connections, of which `limit` are examined at a time.

    `failures` returns how many connections of a source have failed lately, and `complain` notes
    that connections of a source crowd the queue.
    """

    def __init__(self, limit: int, failures: Callable[[str], int], complain: Callable[[str], None]) -> None:
        self._limit = limit
        self._failures = failures
        self._complain = complain
        self._queue: deque[_Stranger] = deque()
        self._examined: Counter[str] = Counter()

    async def wait(self, stranger: _Stranger) -> None:
        """Wait for a turn. Raise Dropped if it has to make room for others."""
        self._queue.append(stranger)
        if len(self._queue) > QUEUED:
            counts = Counter(one.source for one in self._queue)
            crowded = _most_crowded(self._with_failures(counts, counts))
            loser = random.choice([one for one in self._queue if one.source == crowded])
            self._queue.remove(loser)
            loser.is_dropped = True
            loser.is_ready.set()
            self._complain(crowded)
        self._start_next()
        try:
            await stranger.is_ready.wait()
        except BaseException:
            if stranger in self._queue:
                self._queue.remove(stranger)
            elif not stranger.is_dropped:  # its turn had come
                self.end(stranger.source)
            raise
        if stranger.is_dropped:
            raise Dropped(stranger.source, "others took its place")

    def end(self, source: str) -> None:
        """End a turn of a source, so that the next one begins."""
        self._examined[source] -= 1
        self._examined += Counter()  # drops those that are 0
        self._start_next()

    def _start_next(self) -> None:
        while self._queue and self._examined.total() < self._limit:
            loads = self._with_failures(self._examined, {one.source for one in self._queue})
            networks = _of_networks(loads)
            # The oldest of those with the same load.
            chosen = min(self._queue, key=lambda one: (networks[network_of(one.source)], loads[one.source]))
            self._queue.remove(chosen)
            self._examined[chosen.source] += 1
            chosen.is_ready.set()

    def _with_failures(self, counts: Counter[str], sources: Iterable[str]) -> Counter[str]:
        """Return the counts, and the late failures of these sources added to theirs."""
        loads = Counter(counts)
        for source in sources:
            loads[source] += self._failures(source)
        return loads


class Strangers:
    """The strangers of one daemon, of which `limit` are examined at a time.

    `member_key` is the one with which proofs of membership are made (identity.py). One of
    those without a proof is examined in `rest_s` seconds; 0 means no such limit.
    """

    def __init__(self, limit: int, member_key: bytes, rest_s: float = 0.0) -> None:
        self._rest_s = rest_s
        self._rested_s = -math.inf  # when the next stranger without a proof may be examined
        self._proofs = Members(member_key)
        self._silent: dict[_Stranger, None] = {}  # the oldest first
        self._members = _Turns(limit, lambda source: 0, self._complain)
        self._others = _Turns(max(limit // OTHERS_SHARE, 1), self._failures, self._complain)
        self._penalties: dict[str, list[float]] = {}
        self._most_penalties = MAX_PENALTIES * limit
        self._dropped = 0
        self._complained_s = -COMPLAINT_S

    @asynccontextmanager
    async def turn(self, stream: trio.SocketStream) -> AsyncIterator[None]:
        """Wait for the hello of a stranger and for his turn, which lasts as long as the block.

        Raise Dropped if he has said nothing, has gone, or has to make room for others.
        """
        source = source_of(stream)
        stranger = _Stranger(source)
        is_member = source == HERE
        if source != HERE:
            is_member = self._proofs.proves(await self._wait_for_hello(stranger, stream.socket))
        turns = self._members if is_member else self._others
        await turns.wait(stranger)
        try:
            if not is_member and self._rest_s:
                await trio.sleep_until(self._rested_s)
            if _has_gone(stream.socket):
                raise Dropped(source, "it has closed the connection")
            self._rested_s = self._rested_s if is_member else trio.current_time() + self._rest_s
            yield
        finally:
            turns.end(source)

    def punish(self, source: str) -> None:
        """Note that a connection of `source` has turned out to be no member's."""
        now_s = trio.current_time()
        times = self._penalties.setdefault(source, [])
        times.append(now_s)
        del times[:-MAX_PENALTIES]
        while len(self._penalties) > self._most_penalties:
            del self._penalties[next(iter(self._penalties))]

    def forgive(self, source: str) -> None:
        """Note that a connection of `source` is a member's."""
        self._penalties.pop(source, None)

    def _failures(self, source: str) -> int:
        since_s = trio.current_time() - PENALTY_S
        return sum(time_s > since_s for time_s in self._penalties.get(source, ()))

    def _complain(self, source: str) -> None:
        """Log that strangers crowd this daemon, once in COMPLAINT_S."""
        self._dropped += 1
        if trio.current_time() - self._complained_s >= COMPLAINT_S:
            log.warning("strangers-crowd peer=%s dropped=%d", source, self._dropped)
            self._complained_s, self._dropped = trio.current_time(), 0

    async def _wait_for_hello(self, stranger: _Stranger, connection: trio.socket.SocketType) -> bytes:
        self._silent[stranger] = None
        if len(self._silent) > MAX_SILENT:
            crowded = _most_crowded(Counter(one.source for one in self._silent))
            oldest = next(one for one in self._silent if one.source == crowded)
            del self._silent[oldest]
            oldest.drop()
            self._complain(crowded)
        hello = b""
        try:
            with stranger.scope:
                stranger.scope.deadline = trio.current_time() + HELLO_S
                hello = await _hello(connection, stranger.source)
        finally:
            self._silent.pop(stranger, None)
        if stranger.scope.cancelled_caught:
            why = "others took its place" if stranger.is_dropped else f"it began no handshake for {HELLO_S:g} s"
            raise Dropped(stranger.source, why)
        return hello


def _of_networks(loads: Counter[str]) -> Counter[str]:
    networks = Counter[str]()
    for source, load in loads.items():
        networks[network_of(source)] += load
    return networks


def _most_crowded(loads: Counter[str]) -> str:
    """Return the source that has most, of the network that has most."""
    networks = _of_networks(loads)
    return max(loads, key=lambda source: (networks[network_of(source)], loads[source]))


@functools.lru_cache(1024)
def network_of(source: str) -> str:
    """Return the network whose addresses one host may have: 64 bits of IPv6.

    An address of IPv4 and one that holds for one link are networks of their own, and so is HERE.
    """
    try:
        address = ipaddress.ip_address(source)
    except ValueError:
        return source
    if address.version == 4 or address.ipv4_mapped or address.is_link_local:
        return source
    return address.exploded[:19]


def source_of(stream: trio.SocketStream) -> str:
    """Return the host of the other end, as numbers; HERE if it is in this process."""
    try:
        name = stream.socket.getpeername()
    except OSError:
        return "gone"
    return str(name[0]) if isinstance(name, tuple) else HERE


async def _hello(connection: trio.socket.SocketType, source: str) -> bytes:
    """Wait until the first record of a handshake is complete, and return what has arrived.

    Raise Dropped if something else comes.

    Nothing is taken out of the socket, and nothing is interpreted but the length of the record.
    """
    known = 0
    while True:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, known + 1)
        await trio.lowlevel.wait_readable(connection)
        try:
            head = await connection.recv(_HELLO_MAX_BYTES + _RECORD_HEAD_BYTES, socket.MSG_PEEK)
        except OSError as error:
            raise Dropped(source, "it has broken the connection") from error
        if len(head) == known:  # an end, or a hello that is longer than it says
            raise Dropped(source, "it has closed the connection")
        if head[0] != _HANDSHAKE:
            raise Dropped(source, "it does not speak TLS")
        if len(head) >= _RECORD_HEAD_BYTES:
            size = int.from_bytes(head[3:5], "big")
            if size > _HELLO_MAX_BYTES:
                raise Dropped(source, "it does not speak TLS")
            if len(head) >= _RECORD_HEAD_BYTES + size:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
                return head
        known = len(head)  # nothing is read, so the socket would stay readable: SO_RCVLOWAT


def _has_gone(connection: trio.socket.SocketType) -> bool:
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLRDHUP)
    return bool(poll.poll(0))
