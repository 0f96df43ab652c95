"""Look at the pages of a farm of 200 workers, of which one has a hostile name."""

import contextlib
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import trio
from playwright.sync_api import Browser

from tests.browser.trouble import COMMANDS, LOOKS, Trouble
from tests.synthetic_farm import HOSTILE_NAME, USER, farm_of_workers

WORKERS = 200


def look_at_a_farm(browser: Browser, work: Path, target: Path) -> list[str]:
    """Take pictures of a farm's pages; return what is wrong with them."""
    trouble: list[str] = []
    with (
        served_farm(work, "large-farm") as (port, secret, url),
        while_running(lambda: farm_of_workers(("127.0.0.1", port), secret, WORKERS)),
    ):
        own = url.partition("?")[0]
        for name, scheme, width in LOOKS:
            context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 800})
            page = context.new_page()
            seen = Trouble(page, own)
            page.goto(url)
            page.wait_for_selector("table a[href='/worker/w199']")
            seen.take(target / f"farm-{name}.png")
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
            seen.take(target / f"farm-worker-{name}.png")
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
def served_farm(work: Path, name: str) -> Iterator[tuple[int, bytes, str]]:
    """Run a coordinator; yield its port, its secret, and the address of its pages."""
    secret = work / f"{name}-secret.txt"
    subprocess.run([COMMANDS / "termite-ctl", "secret", secret], check=True, capture_output=True)
    words = ["-secret", str(secret), "-port", "0", "-listen", "127.0.0.1", "-http", "0"]
    words += ["-logfile", str(work / f"{name}.log")]
    with subprocess.Popen([COMMANDS / "termite-coordinator", *words], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline().strip().rpartition(":")[2])
            url = process.stdout.readline().strip().rpartition(" ")[2]
            yield port, secret.read_bytes().rstrip(), url
        finally:
            process.terminate()
            process.wait(10)


@contextlib.contextmanager
def while_running(make: Callable[[], AbstractAsyncContextManager[object]]) -> Iterator[None]:
    """Keep what `make` returns open in a thread with trio."""
    ready, ended = threading.Event(), threading.Event()

    async def run() -> None:
        async with make():
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
