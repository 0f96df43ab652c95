"""Digests of what the pictures of README.md show, so that a test finds pictures of older views.

The views are drawn from records that never change. Times of day are left out, because they depend
on the time zone. `make screenshots` writes the digests, and tests/docs compares them.
"""

import hashlib
import re
from pathlib import Path

from termite.cli.display.top_screen import TopState, TopView, screen_lines
from termite.cli.web.farm.farm_pages import farm_page, farm_part
from termite.cli.web.pages import build_page
from termite.cli.web.static_files import STATIC
from termite.engine.wire.protocol.fleet_messages import FarmWorker, ListedWorker, SlotUse, WholeFarm
from tests.synthetic_builds import events_of, synthetic_build

CHECKOUT = Path(__file__).resolve().parents[2]
IMAGES = CHECKOUT / "docs" / "images"
DIGESTS = IMAGES / "shown-views.txt"
_HEAD = "# Digests of what the pictures here show. `make screenshots` writes them with the pictures.\n"
_CLOCK = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")
EVENTS = 150  # after so many, each list of `top` has a job


def shown_views() -> dict[str, str]:
    """Return what each picture shows, by its name."""
    around = "".join((STATIC / name).read_text() for name in ("style.css", "timeline.js"))
    return {
        "top.png": _screen(),
        "build.png": _CLOCK.sub("", build_page(*synthetic_build(60))) + around,
        "farm.png": farm_page("boss:1233", farm_part(_farm(), "")) + around,
    }


def digests_text() -> str:
    """Return the content that the file of digests must have."""
    digests = {name: hashlib.sha256(view.encode()).hexdigest()[:32] for name, view in shown_views().items()}
    return _HEAD + "".join(f"{name} {digest}\n" for name, digest in digests.items())


def _screen() -> str:
    state = TopState()
    for event in events_of(synthetic_build(60))[:EVENTS]:
        state.apply(event)
    lines = screen_lines(state, TopView(), state.live.at_s + 10, 100, 40)
    return "\n".join(f"{line.style.value} {line.text}" for line in lines)


def _farm() -> WholeFarm:
    """Return a farm with a worker in each state."""
    workers = [
        FarmWorker(
            ListedWorker(f"w{number}", f"10.0.0.{number}:1235", 8, number, 1.5, 1 << 33, draining=number == 1),
            silent_s=12.0 if number == 2 else 1.0,
            is_lost=number == 3,
            is_stopped=number == 4,
            release="1.2.3",
            uses=(SlotUse("anna@desk", 2, 1),),
        )
        for number in range(6)
    ]
    return WholeFarm(tuple(workers), 5.0, "1.2.3")
