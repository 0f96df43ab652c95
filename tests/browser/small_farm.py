"""Look at a farm with a worker in each state, and see that each has a mark of its own."""

import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import trio
from playwright.sync_api import Browser, Page

from termite.engine.fleet.coordinator_dial import dial_coordinator
from termite.engine.wire.protocol.fleet_messages import Deregister, Register, SlotUse
from tests.browser.large_farm import served_farm, while_running
from tests.browser.trouble import LOOKS, Trouble
from tests.synthetic_farm import answer_as_workers, beat_of

BEAT_S = 2.0
WORKERS = ("anvil", "bellows", "crucible", "forge", "hammer", "kiln", "tongs")
DRAINED, STOPPED, SILENT, LOST = "bellows", "hammer", "kiln", "tongs"
USERS = ("anna@desk", "berta@laptop", "ci@runner")
# The coordinator calls a worker silent 10 s after its last heartbeat, and lost after 15 s. The
# silent one sends one more heartbeat before each picture.
LIMIT_MS = 30_000


def look_at_each_state(browser: Browser, work: Path, target: Path) -> list[str]:
    """Take pictures of a farm whose workers are in different states; return what is wrong."""
    trouble: list[str] = []
    wake = threading.Event()
    with (
        served_farm(work, "small-farm") as (port, secret, url),
        while_running(lambda: _farm_in_each_state(port, secret, wake)),
    ):
        own = url.partition("?")[0]
        for name, scheme, width in LOOKS:
            context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 400})
            page = context.new_page()
            seen = Trouble(page, own)
            page.goto(url)
            page.wait_for_selector(".state.lost", timeout=LIMIT_MS)
            wake.set()
            for state in ("silent", "lost", "stopped", "drained", "well"):
                page.wait_for_selector(f".state.{state}", timeout=LIMIT_MS)
            seen.take(target / f"farm-states-{name}.png", full_page=True)
            trouble += [f"{name}: {line}" for line in (*_wrong_states(page), *seen.found)]
            context.close()
    return trouble


def _wrong_states(page: Page) -> Iterator[str]:
    """Yield what is wrong with the marks of the workers."""
    script = """marks => marks.map(mark => [
        mark.closest("tr").querySelector("a").textContent, mark.className, mark.textContent,
        getComputedStyle(mark, "::before").content, getComputedStyle(mark, "::before").color])"""
    marks = {name: rest for name, *rest in page.eval_on_selector_all(".state", script)}
    wanted = {DRAINED: "drained", STOPPED: "stopped", SILENT: "silent", LOST: "lost"}
    if marks.keys() != set(WORKERS):
        yield f"these workers have a mark: {sorted(marks)}"
    for name, (classes, words, _, _) in marks.items():
        state = wanted.get(name, "well")
        if classes != f"state {state}" or not words.startswith(wanted.get(name, "answers")):
            yield f"{name} is shown as {classes!r}, {words!r}"
    shapes = {marks[name][2] for name in (*wanted, WORKERS[0])}
    if len(shapes) != len(wanted) + 1:
        yield f"two states have the same mark: {sorted(shapes)}"
    colours = {marks[name][3] for name in (WORKERS[0], DRAINED, SILENT, LOST)}
    if len(colours) != 4:
        yield f"two states have the same colour: {sorted(colours)}"


def _beat(name: str) -> Register:
    number = WORKERS.index(name)
    uses = tuple(SlotUse(user, 2, at % 2 + 1) for at, user in enumerate(USERS[: number % 3 + 1]))
    leased = 0 if name == DRAINED else 2 * len(uses)
    machine = msgspec.structs.replace(beat_of(1, 1).machine, cores=16)
    return msgspec.structs.replace(
        beat_of(number + 1, len(WORKERS)),
        name=name,
        address=f"10.0.0.{number + 10}:1235",
        slots=16,
        leased=leased,
        load=1.25 * leased,
        free_memory_bytes=(number + 3) << 32,
        draining=name == DRAINED,
        release="0.1.0",
        machine=machine,
        uses=() if name == DRAINED else uses,
    )


@asynccontextmanager
async def _farm_in_each_state(port: int, secret: bytes, wake: threading.Event) -> AsyncIterator[None]:
    async with (
        dial_coordinator(("127.0.0.1", port), secret, "farm", answer_as_workers(set())) as connection,
        trio.open_nursery() as nursery,
    ):

        async def beat() -> None:
            while True:
                for name in WORKERS:
                    if name not in (STOPPED, SILENT, LOST) or (name == SILENT and wake.is_set()):
                        await connection.request(_beat(name), timeout_s=10)
                wake.clear()
                await trio.sleep(BEAT_S)

        for name in WORKERS:
            await connection.request(_beat(name), timeout_s=10)
        await connection.request(Deregister(STOPPED), timeout_s=10)
        nursery.start_soon(beat)
        yield
        nursery.cancel_scope.cancel()
