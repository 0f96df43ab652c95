"""Troubles that a browser finds with a page, and the ways in which pages are looked at."""

from pathlib import Path
from typing import Literal

from playwright.sync_api import ConsoleMessage, Page, Request

CHECKOUT = Path(__file__).resolve().parents[2]
COMMANDS = CHECKOUT / ".venv" / "bin"
# The name of a picture, the colours, and the width of the window.
LOOKS: tuple[tuple[str, Literal["light", "dark"], int], ...]
LOOKS = (("light", "light", 1200), ("dark", "dark", 1200), ("phone", "light", 390))


class Trouble:
    """Collects the troubles of a browser's page."""

    def __init__(self, page: Page, own: str) -> None:
        self.found: list[str] = []
        self._own = own
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self.found.append(f"error: {error}"))
        page.on("request", self._see)

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.found.append(f"console: {message.text}")

    def _see(self, request: Request) -> None:
        if not request.url.startswith((self._own, "data:")):
            self.found.append(f"asked for {request.url}")


def is_too_wide(page: Page) -> bool:
    """Return True if the page is wider than the window."""
    found = page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
    return bool(found)
