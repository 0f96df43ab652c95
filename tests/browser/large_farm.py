"""Look at the pages of a farm of 200 workers, of which one has a hostile name."""

import contextlib
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import trio
from playwright.sync_api import Browser

from tests.browser.trouble import COMMANDS, LOOKS, Trouble, is_too_wide
from tests.synthetic_farm import HOSTILE_NAME, USER, farm_of_workers

WORKERS = 200


def look_at_a_farm(browser: Browser, work: Path, target: Path) -> list[str]:
    """Take pictures of a farm's pages; return what is wrong with them."""
    trouble: list[str] = []
    with _farm(work) as url:
        own = url.partition("?")[0]
        for name, scheme, width in LOOKS:
            context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 800})
            page = context.new_page()
            seen = Trouble(page, own)
            page.goto(url)
            page.wait_for_selector("table a[href='/worker/w199']")
            page.screenshot(path=target / f"farm-{name}.png")
            text = page.inner_text("main")
            for wanted in (f"{7 * WORKERS} of {8 * WORKERS}", f"{USER}: 5", f"{USER}\t{5 * WORKERS}\t{3 * WORKERS}"):
                if wanted not in text:
                    trouble.append(f"{name}: the front page does not say {wanted!r}")
            page.click("table a[href^='/worker/%3Cscript']")
            page.wait_for_selector("pre")
            if HOSTILE_NAME[:8] not in page.inner_text("pre") or page.query_selector("img"):
                trouble.append(f"{name}: hostile text became markup")
            page.goto(f"{own}worker/w001")
            page.wait_for_selector("pre")
            page.screenshot(path=target / f"farm-worker-{name}.png")
            trouble += [f"{name}: a worker's page is wider than the screen"] if is_too_wide(page) else []
            page.click("button")
            page.wait_for_selector("text=drained: it takes no new jobs")
            page.click("button")
            page.wait_for_selector("text=takes jobs")
            if "stolen" in page.title():
                trouble.append(f"{name}: a script of a name ran")
            trouble += [f"{name}: {line}" for line in seen.found]
            context.close()
    return trouble


@contextlib.contextmanager
def _farm(work: Path) -> Iterator[str]:
    """Run a coordinator with its pages and its workers; yield the address of the pages."""
    secret = work / "large-farm-secret.txt"
    subprocess.run([COMMANDS / "termite-ctl", "secret", secret], check=True, capture_output=True)
    words = ["-secret", str(secret), "-port", "0", "-listen", "127.0.0.1", "-http", "0"]
    words += ["-logfile", str(work / "large-farm.log")]
    with subprocess.Popen([COMMANDS / "termite-coordinator", *words], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline().strip().rpartition(":")[2])
            url = process.stdout.readline().strip().rpartition(" ")[2]
            with _workers(port, secret.read_bytes().rstrip()):
                yield url
        finally:
            process.terminate()
            process.wait(10)


@contextlib.contextmanager
def _workers(port: int, secret: bytes) -> Iterator[None]:
    ready, ended = threading.Event(), threading.Event()

    async def run() -> None:
        async with farm_of_workers(("127.0.0.1", port), secret, WORKERS):
            ready.set()
            await trio.to_thread.run_sync(ended.wait)

    thread = threading.Thread(target=trio.run, args=(run,))
    thread.start()
    try:
        assert ready.wait(30)
        yield
    finally:
        ended.set()
        thread.join()
