"""Build a project, look at its pages in headless Chromium, and take pictures for the documents.

    python -m tests.browser [DIRECTORY]

The pictures go to DIRECTORY, or else to build/screenshots. If nothing is wrong, those of README.md
go to docs/images, too. The program fails if a page writes an error to the browser's console, asks
for anything elsewhere, lets hostile text become markup, or shows other numbers than the records
have.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
from playwright.sync_api import Browser, sync_playwright

from tests.browser.farm import WORKERS, farm
from tests.browser.large_farm import look_at_a_farm
from tests.browser.screen import Screen
from tests.browser.shown_views import DIGESTS, IMAGES, digests_text
from tests.browser.small_farm import look_at_each_state
from tests.browser.timeline import DrawnBuild
from tests.browser.trouble import CHECKOUT, COMMANDS, LOOKS, Trouble
from tests.synthetic_builds import synthetic_build, write_history

PICTURES = CHECKOUT / "build" / "screenshots"
CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]
HOSTILE = "\"><script>document.title='stolen'</script><img src=x onerror=\"document.title='stolen'\">"
SOURCES = 24
RETRIED = 3  # the kind of jobs in a timeline
# The pictures of README.md: what is copied to docs/images, and under which name.
SHOWN = {"top.png": "top.png", "build-top-light.png": "build.png", "farm-states-light.png": "farm.png"}
# Enough work for a picture: some files compile for a moment, one command fails, some run here.
MAKEFILE = f"""OBJECTS = $(patsubst %,part%.o,$(shell seq 1 {SOURCES}))
all: program check
program: $(OBJECTS) main.o
\t$(CXX) -o $@ $^
check: program
\t./program
\t-test -e missing.txt
version.h:
\tdate +'#define BUILT "%F"' >$@
main.o: version.h
%.o: %.cc
\t$(CXX) -O2 -c -o $@ $<
"""
RULES = """[{"Regexp": "^date ", "Local": true}]
"""
LONG = """#include <regex>
#include <string>
bool NAME(const std::string& s) { return std::regex_match(s, std::regex("a+")); }
"""
SHORT = """#include <string>
bool NAME(const std::string& s) { return s.empty(); }
"""


def main(target: Path) -> int:
    """Take all pictures; return the number of things that went wrong."""
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="termite-browser-") as work, sync_playwright() as driver:
        os.environ["XDG_STATE_HOME"] = f"{work}/state"
        os.environ.pop("TERMITE_SOCKET", None)
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            trouble = [
                *look_at_a_real_build(browser, Path(work), target),
                *look_at_hostile_text(browser, Path(work)),
                *look_at_a_farm(browser, Path(work), target),
                *look_at_each_state(browser, Path(work), target),
            ]
        finally:
            browser.close()
    for line in trouble:
        print(f"screenshots: {line}", file=sys.stderr)
    if not trouble and target == PICTURES:
        for name, image in SHOWN.items():
            shutil.copy(target / name, IMAGES / image)
        DIGESTS.write_text(digests_text())
    print(f"screenshots: {len(list(target.glob('*.png')))} pictures in {target}, {len(trouble)} troubles")
    return len(trouble)


def look_at_a_real_build(browser: Browser, work: Path, target: Path) -> list[str]:
    """Build a project on a farm in this machine, and look at its pages."""
    tree = work / "project"
    tree.mkdir()
    (tree / "Makefile").write_text(MAKEFILE)
    (tree / ".termite-localrc").write_text(RULES)
    (tree / "main.cc").write_text('#include "version.h"\nint main() { return 0; }\n')
    for number in range(1, SOURCES + 1):
        source = LONG if number % 3 else SHORT
        (tree / f"part{number}.cc").write_text(source.replace("NAME", f"part{number}"))
    with farm(work, tree, slots=3):
        with subprocess.Popen([COMMANDS / "termite-make", "-j6"], cwd=tree) as build:
            picture_of_top(browser, tree, target / "top.png")
            if build.wait(300):
                return ["the build has failed"]
        with served(tree) as url:
            return look_around(browser, url, target)


def picture_of_top(browser: Browser, tree: Path, path: Path) -> None:
    """Take a picture of `termite-ctl top` on a terminal, in the middle of a build."""
    screen = Screen([COMMANDS / "termite-ctl", "top", "-interval", "0.2"], tree, os.environ)
    try:
        for _ in range(100):
            shown = screen.follow(0.3)
            done = re.search(r": (\d+) jobs done", shown)
            if re.search(r"^[4-6] running", shown, re.MULTILINE) and done and int(done[1]) >= SOURCES // 3:
                break
        screen.press(b"\x1b[B\x1b[B")
        screen.follow(0.3)
        drawn = screen.as_html()
    finally:
        screen.close()
    page = browser.new_page(viewport={"width": 800, "height": 100})
    style = "margin:0;padding:12px;color:#c8cdd3;font:14px/1.35 monospace"
    page.set_content(f'<body style="margin:0;background:#15181c"><pre style="{style}">{drawn}</pre>')
    page.screenshot(path=path, full_page=True)
    page.close()


def look_around(browser: Browser, url: str, target: Path) -> list[str]:
    """Open each page in a light and in a dark browser, wide and narrow."""
    own = url.partition("?")[0]
    trouble: list[str] = []
    for name, scheme, width in LOOKS:
        context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 800})
        page = context.new_page()
        seen = Trouble(page, own)
        page.goto(url)
        page.wait_for_selector("h2")
        seen.take(target / f"front-{name}.png", full_page=True)
        page.goto(f"{own}build/1")
        drawn = DrawnBuild(page)
        job = drawn.longest()
        seen.found += [*drawn.parallelism(), *drawn.point_at(job)]
        seen.take(target / f"build-{name}.png", full_page=True)
        seen.take(target / f"build-top-{name}.png")
        seen.found += [*drawn.zoom_and_move(job), *drawn.open(job)]
        seen.take(target / f"job-{name}.png", full_page=True)
        page.goto(f"{own}worker/{WORKERS[0]}")
        page.wait_for_selector("form button")
        seen.take(target / f"worker-{name}.png", full_page=True)
        trouble += [f"{name}: {line}" for line in seen.found]
        context.close()
    return trouble


def look_at_hostile_text(browser: Browser, work: Path) -> list[str]:
    """Look at a build whose command, files and output want to be markup."""
    tree = work / "hostile"
    tree.mkdir()
    build, jobs = synthetic_build(1000)
    hostile = [
        msgspec.structs.replace(job, text=HOSTILE, cwd=HOSTILE, files=(HOSTILE.encode(),), output=HOSTILE.encode())
        for job in jobs
    ]
    sys.path.insert(0, str(CHECKOUT))
    from termite.cli.places import records_directory

    write_history(records_directory(tree), [(msgspec.structs.replace(build, text=HOSTILE), hostile)])  # type: ignore[list-item]
    trouble: list[str] = []
    with served(tree) as url:
        page = browser.new_page()
        own = url.partition("?")[0]
        seen = Trouble(page, own)
        for path in ("", "build/1", f"job/{jobs[0].id}", "worker/alpha"):
            page.goto(url if not path else f"{own}{path}")
            if path == "build/1":
                page.wait_for_selector("canvas[data-drawn]")
                drawn = int(page.get_attribute("#timeline", "data-drawn") or 0)
                if drawn != sum(1 for job in jobs if job.sent_s):
                    trouble.append(f"{drawn} jobs are drawn")
                canvas = DrawnBuild(page)
                trouble += [*canvas.parallelism(), *canvas.point_at(canvas.longest(kind=RETRIED))]
            if "stolen" in page.title() or page.query_selector("img"):
                trouble.append(f"hostile text became markup in /{path}")
        trouble += seen.found
    return trouble


@contextlib.contextmanager
def served(tree: Path) -> Iterator[str]:
    """Serve the pages of a tree; yield their address."""
    with subprocess.Popen(
        [COMMANDS / "termite-ctl", "web", "-http", "0"], cwd=tree, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            address = re.search(r"http://\S+", line)
            assert address, line
            yield address[0]
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(10)


if __name__ == "__main__":
    raise SystemExit(min(main(Path(sys.argv[1] if len(sys.argv) > 1 else PICTURES)), 1))
