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
        self._page = page
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self.found.append(f"error: {error}"))
        page.on("request", self._see)

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.found.append(f"console: {message.text}")

    def _see(self, request: Request) -> None:
        if not request.url.startswith((self._own, "data:")):
            self.found.append(f"asked for {request.url}")

    def take(self, path: Path, full_page: bool = False) -> None:
        """Take a picture of the page. It is a trouble if the page is wider than its window."""
        self._page.screenshot(path=path, full_page=full_page)
        script = "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
        width, window = self._page.evaluate(script)
        if width > window:
            self.found.append(f"{path.stem}: the page is {width} wide, and the window {window}")
