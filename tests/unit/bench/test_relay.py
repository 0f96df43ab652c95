"""bench/relay.py: the thin link of a benchmark."""

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair

from bench.relay import Link, Relay


def test_a_byte_arrives_after_its_time_on_the_line_and_the_delay() -> None:
    link = Link(bytes_s=1000.0, delay_s=0.5)
    assert link.arrival(10.0, 100) == pytest.approx(10.6)


def test_what_is_sent_while_the_line_is_busy_waits_for_it() -> None:
    link = Link(bytes_s=1000.0, delay_s=0.5)
    assert [link.arrival(0.0, 1000), link.arrival(0.2, 1000)] == pytest.approx([1.5, 2.5])


def test_an_idle_line_saves_nothing_up() -> None:
    link = Link(bytes_s=1000.0, delay_s=0.0)
    link.arrival(0.0, 1000)
    assert link.arrival(100.0, 1000) == pytest.approx(101.0)


async def passed_on(is_thin: bool) -> tuple[bytes, float]:
    """Send 3000 bytes over 1 s and 1000 bytes/s; return the received bytes and the seconds."""
    relay = Relay(("nowhere", 0), Link(1000.0, 1.0), Link(1000.0, 1.0))
    relay.is_thin = is_thin
    ours, near = memory_stream_pair()
    far, theirs = memory_stream_pair()
    began = trio.current_time()
    received = b""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(relay.pass_on, near, far, Link(1000.0, 1.0), nursery.cancel_scope)
        await ours.send_all(b"abc" * 1000)
        while len(received) < 3000:
            received += await theirs.receive_some()
        took = trio.current_time() - began
        await ours.aclose()
    return received, took


async def test_a_thin_link_passes_everything_on_in_order_in_its_time(autojump_clock: MockClock) -> None:
    received, took = await passed_on(is_thin=True)
    assert received == b"abc" * 1000
    assert took == pytest.approx(4.0)


async def test_an_opened_link_takes_no_time(autojump_clock: MockClock) -> None:
    received, took = await passed_on(is_thin=False)
    assert received == b"abc" * 1000
    assert took == pytest.approx(0.0)
