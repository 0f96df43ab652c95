"""`termite-coordinator -http`: a real coordinator, the process of its pages, and 200 workers."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest
import trio

from termite.engine.wire.identity import read_secret
from tests.edge.cli.test_web import Browser
from tests.synthetic_farm import HOSTILE_NAME, farm_of_workers

WORKERS = 200
PAGE_CPU_S = 0.05
WITHOUT_STARLETTE = """
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name == "starlette" else find(name, *more)
"""


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret.txt"
    words = [sys.executable, "-m", "termite.cli.ctl", "secret", str(path)]
    subprocess.run(words, check=True, capture_output=True, timeout=20)
    return path


class RunningCoordinator:
    """A coordinator with pages: its port, the browser of its pages, and what it logs."""

    def __init__(self, process: "subprocess.Popen[str]", log: Path) -> None:
        self.process = process
        self.log = log
        assert process.stdout is not None
        self.port = int(process.stdout.readline().strip().rpartition(":")[2])
        self.browser = Browser(process.stdout.readline().strip().rpartition(" ")[2])

    def pages_pid(self) -> int:
        children = Path(f"/proc/{self.process.pid}/task").glob("*/children")
        pids = [pid for file in children for pid in file.read_text().split()]
        return int(next(pid for pid in pids if b"farm_process" in Path(f"/proc/{pid}/cmdline").read_bytes()))


@contextmanager
def coordinator(secret: Path, *flags: str) -> Iterator[RunningCoordinator]:
    log = secret.parent / "log"
    words = ["--secret", str(secret), "--port", "0", "--listen", "127.0.0.1", "--http", "0", "--logfile", str(log)]
    program = [sys.executable, "-c", "from termite.cli import coordinator_command; coordinator_command()"]
    with subprocess.Popen([*program, *words, *flags], stdout=subprocess.PIPE, text=True) as process:
        try:
            yield RunningCoordinator(process, log)
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(15) == 0


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def test_pages_of_200_workers_are_for_the_token_and_cost_little(secret: Path) -> None:
    with coordinator(secret, "--http-name", "farm.example") as running:
        browser, ask = running.browser, running.browser.ask
        async with farm_of_workers(("127.0.0.1", running.port), read_secret(secret), WORKERS) as drained:
            for path in (
                "/",
                "/now",
                "/worker/w001",
                "/worker-now/w001",
                "/status.json",
                "/metrics",
                "/static/style.css",
            ):
                answer = await trio.to_thread.run_sync(ask, path)
                assert answer.status == 403 and "anna" not in answer.text and "w001" not in answer.text, path
            assert (await trio.to_thread.run_sync(lambda: ask("/drain/w001", "POST", "token=x"))).status == 403
            await trio.to_thread.run_sync(browser.log_in)
            for host, status in (("evil.example", 421), ("farm.example", 200)):
                answer = await trio.to_thread.run_sync(lambda host=host: ask("/", Host=host))  # type: ignore[misc]
                assert answer.status == status
                assert "Access-Control-Allow-Origin" not in answer.headers

            front = await trio.to_thread.run_sync(ask, "/")
            assert "w199" in front.text and "anna@desk: 5" in front.text and len(front.text.encode()) < 500_000
            assert f"<td>{7 * WORKERS} of {8 * WORKERS}</td>" in front.text
            assert HOSTILE_NAME[:16] not in front.text and "&lt;script&gt;" in front.text
            page = await trio.to_thread.run_sync(ask, "/worker/w001")
            assert "number=199" in page.text and "\x1b" not in page.text and "<script>doc" not in page.text
            assert len(page.text.encode()) < 500_000
            odd = await trio.to_thread.run_sync(ask, f"/worker/{quote(HOSTILE_NAME, safe='')}")
            assert odd.status == 200 and 'action="/drain/%3Cscript' in odd.text

            for path in ("/", "/worker/w001"):
                before_s, pages = cpu_s(running.pages_pid()), 20
                for _ in range(pages):
                    assert (await trio.to_thread.run_sync(ask, path)).status == 200
                assert (cpu_s(running.pages_pid()) - before_s) / pages < PAGE_CPU_S, path

            assert (await trio.to_thread.run_sync(lambda: ask("/drain/w001", "POST", "token=x"))).status == 403
            assert (await trio.to_thread.run_sync(lambda: ask("/drain/w001"))).status == 405
            form = browser.form_token(page.text)
            answer = await trio.to_thread.run_sync(lambda: ask("/drain/w001", "POST", f"token={form}"))
            assert (answer.status, answer.headers["Location"], drained) == (303, "/worker/w001", {"w001"})
            assert "Let it take jobs again" in (await trio.to_thread.run_sync(ask, "/worker/w001")).text
            for path in ("/worker/none", "/build/1", "/job/1", "/trace.json", "/static/site.py"):
                assert (await trio.to_thread.run_sync(ask, path)).status == 404, path
        assert "drain-asked worker=w001 drained=True" in running.log.read_text()


async def test_a_killed_process_of_the_pages_is_started_again_and_harms_nobody(secret: Path) -> None:
    with coordinator(secret) as running:
        await trio.to_thread.run_sync(running.browser.log_in)
        os.kill(running.pages_pid(), signal.SIGKILL)
        answer = await trio.to_thread.run_sync(running.browser.ask, "/")  # it waits in the socket meanwhile
        assert answer.status == 200, "the cookie is still good"
        log = running.log.read_text()
        assert "pages-ended seconds=1 reason=signal 9" in log and log.count("pages-started pid=") == 2
        pid = running.pages_pid()
    with pytest.raises(ProcessLookupError):  # it ends with the coordinator
        os.kill(pid, 0)


def test_pages_end_with_a_killed_coordinator(secret: Path) -> None:
    with coordinator(secret) as running:
        running.browser.log_in()
        descriptor = os.pidfd_open(running.pages_pid())
        running.process.kill()
        running.process.wait()
        trio.run(wait_readable, descriptor)
        os.close(descriptor)
        running.process.returncode = 0  # we have killed it


async def wait_readable(descriptor: int) -> None:
    with trio.fail_after(15):
        await trio.lowlevel.wait_readable(descriptor)


def start_badly(secret: Path, *flags: str, before: str = "") -> str:
    program = f"{before}\nfrom termite.cli import coordinator_command; raise SystemExit(coordinator_command())"
    words = ["--secret", str(secret), "--port", "0", *flags]
    done = subprocess.run(
        [sys.executable, "-c", program, *words], check=False, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 100, done
    return done.stderr


def test_what_is_missing_for_pages_is_one_clear_line(secret: Path) -> None:
    assert "pip install termite[web]" in start_badly(secret, "--http", "0", before=WITHOUT_STARLETTE)
    assert "-http is [HOST:]PORT, not nonsense" in start_badly(secret, "--http", "nonsense")
    with coordinator(secret) as running:
        said = start_badly(secret, "--http", str(running.browser.port))
    assert re.search(r"cannot listen on 127\.0\.0\.1:\d+: Address already in use", said)


async def test_pages_say_that_the_coordinator_does_not_answer(secret: Path) -> None:
    with coordinator(secret) as running:
        await trio.to_thread.run_sync(running.browser.log_in)
        assert "Farm" in (await trio.to_thread.run_sync(running.browser.ask, "/")).text
        os.kill(running.process.pid, signal.SIGSTOP)
        try:
            with trio.fail_after(20):  # an answer is kept for a second
                answer = await trio.to_thread.run_sync(running.browser.ask, "/")
                while "does not answer" not in answer.text:
                    answer = await trio.to_thread.run_sync(running.browser.ask, "/")
        finally:
            os.kill(running.process.pid, signal.SIGCONT)
        assert "Workers" in answer.text, "what was known is shown"
