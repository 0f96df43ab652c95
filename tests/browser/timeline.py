"""Use the timeline of a build as a person does: point at a job, zoom, move, open the job."""

from collections.abc import Iterator
from typing import Any

from playwright.sync_api import Page

MARGIN = 90  # of the names of the slots: as in timeline.js
LIMIT_MS = 5000


class DrawnBuild:
    """A build as its page has drawn it, and the places of its jobs on the canvas."""

    def __init__(self, page: Page) -> None:
        self._page = page
        page.wait_for_selector("canvas[data-drawn]")
        address = page.get_attribute("#timeline", "data-source")
        self.build: dict[str, Any] = page.evaluate("address => fetch(address).then(one => one.json())", address)

    def longest(self, kind: int | None = None) -> list[Any]:
        """Return the job that is drawn as the widest one, of all or of a kind."""
        jobs = [job for job in self.build["jobs"] if kind is None or job[6] == kind]
        return max(jobs, key=lambda job: int(job[4] - job[1]))

    @property
    def range_ms(self) -> tuple[int, int]:
        """The first and the last millisecond that is on the screen."""
        first, last = (self._page.get_attribute("#timeline", "data-range") or "").split()
        return int(first), int(last)

    def middle_of(self, job: list[Any]) -> tuple[float, float]:
        """Return where the middle of a job is on the canvas."""
        box = self._page.locator("#timeline").bounding_box()
        assert box
        first, last = self.range_ms
        row = max(8, min(22, 600 / len(self.build["tracks"])))
        part = ((job[1] + job[4]) / 2 - first) / (last - first)
        return MARGIN + part * (box["width"] - MARGIN), (job[0] + 0.5) * row

    def point_at(self, job: list[Any]) -> Iterator[str]:
        """Move the mouse to a job; yield what is wrong with the words that appear."""
        x, y = self.middle_of(job)
        self._page.hover("#timeline", position={"x": x, "y": y})
        shown, texts = self._page.inner_text("#hover"), self.build["texts"]
        tries = [f"retried {texts[at]}" for at in job[11:]]
        for wanted in (f"job {job[5]} in {self.build['tracks'][job[0]]}: {job[7]}", texts[job[9]], job[10], *tries):
            if wanted not in shown:
                yield f"the words at job {job[5]} are {shown!r}, without {wanted!r}"
        if f"because: {texts[job[8]]}" not in shown or "running" not in shown:
            yield f"the words at job {job[5]} do not say why or when it ran: {shown!r}"

    def zoom_and_move(self, job: list[Any]) -> Iterator[str]:
        """Zoom with the mouse at a job, drag and press keys; yield what is wrong with the range."""
        before = self.range_ms
        self._page.mouse.wheel(0, -300)
        self._page.wait_for_function(f"timeline.dataset.range != '{before[0]} {before[1]}'", timeout=LIMIT_MS)
        near = self.range_ms
        if not (before[0] <= near[0] <= job[4] and job[1] <= near[1] <= before[1] and _span(near) < _span(before)):
            yield f"after the wheel the range is {near}, and was {before}; job {job[5]} is at {job[1]} to {job[4]}"
        self._page.focus("#timeline")
        self._page.keyboard.press("+")
        nearest = self.range_ms
        self._page.keyboard.press("ArrowRight")
        moved = self.range_ms
        if not _span(nearest) < _span(near) or abs(_span(moved) - _span(nearest)) > 2 or moved[0] < nearest[0]:
            yield f"after the keys + and right the ranges are {nearest} and {moved}, and it was {near}"
        for _ in range(9):
            self._page.keyboard.press("-")
        if self.range_ms != before:
            yield f"after the key - the range is {self.range_ms}, and not {before}"

    def open(self, job: list[Any]) -> Iterator[str]:
        """Click at a job; yield what is wrong with the page that opens."""
        x, y = self.middle_of(job)
        self._page.click("#timeline", position={"x": x, "y": y})
        self._page.wait_for_url(f"**/job/{job[5]}", timeout=LIMIT_MS)
        text = " ".join(self._page.inner_text("pre").split())
        for wanted in (f"because {self.build['texts'][job[8]]}", f"end {self.build['texts'][job[9]]}"):
            if wanted not in text:
                yield f"the page of job {job[5]} does not say {wanted!r}"

    def parallelism(self) -> Iterator[str]:
        """Yield what is wrong with the curve of jobs at the same time."""
        drawn = """canvas => {
            const { width, height } = canvas;
            const left = Math.ceil(100 * devicePixelRatio);
            return canvas.getContext("2d").getImageData(left, 0, width - left, height).data.some(part => part);
        }"""
        if not self._page.eval_on_selector("#parallel", drawn):
            yield "no jobs at the same time are drawn"


def _span(range_ms: tuple[int, int]) -> int:
    return range_ms[1] - range_ms[0]
