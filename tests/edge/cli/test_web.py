"""`termite-ctl web`: real HTTP to a real process, which lets only its own user's browser in."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
import trio

from termite.cli.places import records_directory
from termite.cli.web.access import bound_token
from termite.cli.web.live_follower import LiveFollower
from termite.cli.web.pages import now_part
from termite.cli.web.site import end_launcher
from termite.engine.history.logic.job_record import Where
from termite.engine.wire.protocol import launcher_frames
from tests.live_master import serving
from tests.synthetic_builds import events_of, synthetic_build, synthetic_history, write_history

WEB = [sys.executable, "-m", "termite.cli.ctl", "web", "--http", "0"]


class Answer(NamedTuple):
    status: int
    text: str
    headers: http.client.HTTPMessage


class Browser:
    """A client of the pages: remembers the cookie, and may pretend to come from elsewhere."""

    def __init__(self, url: str) -> None:
        found = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/\?token=(\S+)", url)
        assert found, url
        self.port, self.token = int(found[1]), found[2]
        self.cookie = ""

    def ask(self, path: str, method: str = "GET", body: str = "", **headers: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            sent = {**({"Cookie": self.cookie} if self.cookie else {}), **headers}
            connection.request(method, path, body or None, sent)
            answer = connection.getresponse()
            return Answer(answer.status, answer.read().decode(), answer.headers)
        finally:
            connection.close()

    def log_in(self) -> None:
        answer = self.ask(f"/?token={self.token}")
        assert answer.status == 303
        assert self.token not in answer.headers["Location"]
        cookie = answer.headers["Set-Cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=lax" in cookie
        assert self.token not in cookie
        self.cookie = cookie.partition(";")[0]

    def form_token(self, page: str) -> str:
        found = re.search(r'name="token" value="([0-9a-f]{64})"', page)
        assert found
        return found[1]


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("TERMITE_SOCKET", raising=False)
    root = tmp_path / "tree"
    root.mkdir()
    write_history(records_directory(root), synthetic_history(2, 60))
    return root


@contextmanager
def served(tree: Path, *words: str) -> Iterator[tuple[Browser, "subprocess.Popen[str]"]]:
    limit = ["prlimit", "--nofile=128:4096"]  # a low one, as some systems have it
    with subprocess.Popen([*limit, *WEB, *words], cwd=tree, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            yield Browser(line.split()[3]), process
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0


def test_a_stranger_who_goes_away_does_not_end_the_pages(tree: Path) -> None:
    """He needs no token: an answer that he does not wait for is written to a closed connection."""
    with served(tree) as (browser, process):
        for count in range(1, 40):
            with socket.create_connection(("127.0.0.1", browser.port), timeout=10) as stranger:
                stranger.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * count)
                stranger.recv(1)
        browser.log_in()
        assert browser.ask("/").status == 200
        assert process.poll() is None


def test_idle_connections_keep_nobody_out(tree: Path) -> None:
    with served(tree) as (browser, _):
        strangers = [socket.create_connection(("127.0.0.1", browser.port), timeout=10) for _ in range(300)]
        for stranger in strangers:
            stranger.sendall(b"GET / HTTP/1.1\r\n")
        # Idle connections end after 5 s, which would be too late for a person.
        with socket.create_connection(("127.0.0.1", browser.port), timeout=3) as visitor:
            visitor.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert visitor.recv(12) == b"HTTP/1.1 403"
        for stranger in strangers:
            stranger.close()


def test_pages_are_for_those_who_have_the_token(tree: Path) -> None:
    with served(tree, "--name", "build.example") as (browser, _):
        for path in (
            "/",
            "/build/2",
            "/job/1",
            "/metrics",
            "/static/style.css",
            "/none",
            "/?token=wrong",
            "/job/1/kill",
        ):
            assert browser.ask(path).status == 403, path
            for cookie in ("wrong", browser.token):
                assert browser.ask(path, Cookie=f"termite_{browser.port}={cookie}").status == 403, path
            for given in ("Bearer wrong", f"Basic {browser.token}", "Bearer"):
                assert browser.ask(path, Authorization=given).status == 403, path
        browser.log_in()
        assert browser.ask("/").status == 200
        for host, status in (("evil.example", 421), ("127.0.0.1.evil.example", 421), ("", 421), ("build.example", 200)):
            assert browser.ask("/", Host=host).status == status, host
        answer = browser.ask("/", Origin="http://evil.example")
        assert "Access-Control-Allow-Origin" not in answer.headers
        assert "script-src 'self'" in answer.headers["Content-Security-Policy"]
        assert answer.headers["Cache-Control"] == "no-store"


def test_every_page_and_every_feed_answers(tree: Path) -> None:
    job = next(job for job in synthetic_history(2, 60)[1].jobs if job.files)
    with served(tree) as (browser, _):
        browser.log_in()
        assert "No master runs" in browser.ask("/").text
        assert "/build/2" in browser.ask("/").text
        assert "Timeline" in browser.ask("/build/2").text
        assert len(json.loads(browser.ask("/build/2/timeline.json").text)["jobs"]) > 40
        assert os.fsdecode(job.files[0]) in browser.ask(f"/job/{job.id}").text
        assert "no lease" in browser.ask("/worker/alpha").text
        assert json.loads(browser.ask("/trace.json?build=1").text)["traceEvents"]
        assert [build["id"] for build in json.loads(browser.ask("/status.json").text)["builds"]] == [2, 1]
        assert "termite_last_build_number 2.0" in browser.ask("/metrics").text
        assert browser.ask("/static/timeline.js").headers["Content-Type"].startswith("text/javascript")
        missing = ("/build/99", "/job/99999", "/static/site.py", "/static/..%2fsite.py", "/trace.json?build=x", "/x")
        for path in missing:
            assert browser.ask(path).status == 404, path
        assert browser.ask("/job/1/kill").status == 405
        assert browser.ask("/job/1/kill", "POST", "token=no").status == 403
        assert browser.ask("/job/1/kill", "POST", f"token={browser.token}").status == 403
        assert browser.ask("/job/1/kill", "POST", f"token={browser.cookie.partition('=')[2]}").status == 403
        form = bound_token(browser.token, "form", browser.port)
        assert browser.ask("/job/1/kill", "POST", f"token={form}").status == 404
        assert browser.ask("/job/1/kill", "POST", "x" * 10_000).status == 413


def test_programs_send_the_token_and_need_no_cookie(tree: Path) -> None:
    with served(tree) as (browser, _):
        for path in ("/", "/build/2", "/metrics", "/status.json", "/trace.json"):
            assert browser.ask(path, Authorization=f"Bearer {browser.token}").status == 200, path
        for path in ("/metrics?", "/status.json?", "/trace.json?build=1&"):
            answer = browser.ask(f"{path}token={browser.token}")
            assert answer.status == 200, path
            assert "Set-Cookie" not in answer.headers
            assert browser.ask(f"{path}token=wrong").status == 403
        assert "termite_last_build_number 2.0" in browser.ask(f"/metrics?token={browser.token}").text


def test_a_redirect_leads_nowhere_else(tree: Path) -> None:
    with served(tree) as (browser, _):
        for path, there in (
            ("//evil.example/x", "/evil.example/x"),
            ("/%2F%2fevil.example", "/evil.example"),
            ("/\\evil.example", "/evil.example"),
            ("/build/2", "/build/2"),
            ("/a%0d%0ab", "/a%0D%0Ab"),
        ):
            answer = browser.ask(f"{path}?token={browser.token}&a=b")
            assert (answer.status, answer.headers["Location"]) == (303, f"{there}?a=b")


def test_two_trees_are_looked_at_in_one_browser(tree: Path) -> None:
    with served(tree) as (one, _), served(tree) as (other, _):
        one.log_in()
        other.log_in()
        both = f"{one.cookie}; {other.cookie}"  # browsers send cookies to all ports of a host
        assert one.ask("/", Cookie=both).status == other.ask("/", Cookie=both).status == 200
        stolen = other.cookie.partition("=")[2]
        assert one.ask("/", Cookie=f"termite_{one.port}={stolen}").status == 403


def cpu_s(pid: int) -> float:
    """Return the CPU time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def cheapest(browser: Browser, pid: int, path: str) -> float:
    """Return the CPU seconds that an answer costs the server, and check that it is small."""
    costs = []
    for _ in range(3):  # a machine that does much else makes some of them dearer
        before_s = cpu_s(pid)
        for _ in range(5):
            answer = browser.ask(path)
            assert answer.status == 200 and len(answer.text.encode()) <= 500_000, path
        costs.append((cpu_s(pid) - before_s) / 5)
    return min(costs)


async def test_pages_of_a_thousand_jobs_and_of_two_hundred_workers_are_cheap(tree: Path) -> None:
    write_history(records_directory(tree), [synthetic_build(1000, 3, 1000)])
    workers = [f"worker{number}" for number in range(200)]
    events = events_of(synthetic_build(2000, 4, 3000, workers, slots=5), workers)
    async with serving(tree / ".termite-socket") as master:
        for event in events:
            if len(master.state.jobs) < 1000:
                master.emit(event)
        assert len(master.state.jobs) == 1000 and len(master.state.workers) == 200
        running, waiting = len(master.state.running(time.time())), len(master.state.waiting)
        assert running + waiting == 1000
        last = sorted(master.state.workers)[-1]

        def ask() -> dict[str, float]:
            with served(tree) as (browser, process):
                browser.log_in()
                deadline_s = time.monotonic() + 20
                while f"{running} jobs run, {waiting} wait" not in (now := browser.ask("/now").text) or last not in now:
                    assert time.monotonic() < deadline_s, now
                    time.sleep(0.05)
                paths = (
                    "/",
                    "/now",
                    "/build/3",
                    "/build/3/timeline.json",
                    "/job/1500",
                    "/worker/alpha",
                    "/worker/worker7",
                )
                return {path: cheapest(browser, process.pid, path) for path in paths}

        costs = await trio.to_thread.run_sync(ask)
    assert max(costs.values()) <= 0.05, costs


async def until(browser: Browser, text: str) -> None:
    with trio.fail_after(10):
        while text not in (await trio.to_thread.run_sync(browser.ask, "/now")).text:  # noqa: ASYNC110
            await trio.sleep(0.1)


async def test_it_follows_a_master_that_comes_and_goes(tree: Path) -> None:
    events = events_of(synthetic_build(60))
    with served(tree) as (browser, _):
        await trio.to_thread.run_sync(browser.log_in)

        await until(browser, "No master runs")
        async with serving(tree / ".termite-socket") as master:
            for event in events[:100]:
                master.emit(event)
            running = [job for job in master.state.jobs.values() if job.sent_s]
            await until(browser, f"{len(running)} jobs run")
            assert running[0].text.partition("\n")[0][:12] in browser.ask(f"/job/{running[0].id}").text
            for job in running:
                page = browser.ask(f"/job/{job.id}").text
                assert ("End this job" in page) == (job.where is Where.WORKER)
                if job.where is Where.HERE:  # its launcher has become the command
                    sent = f"token={bound_token(browser.token, 'form', browser.port)}"
                    refused = browser.ask(f"/job/{job.id}/kill", "POST", sent)
                    assert refused.status == 409
                    assert "only jobs that wait or run on a worker" in refused.text
                else:
                    assert browser.form_token(page) not in (browser.token, browser.cookie)
            assert {job.where for job in running} == {Where.WORKER, Where.HERE}
            waiting = next(job for job in master.state.jobs.values() if not job.sent_s)
            assert "End this job" in browser.ask(f"/job/{waiting.id}").text
        await until(browser, "No master runs")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (
            launcher_frames.frame(
                launcher_frames.ANSWER, b'{"error": "unknown command watch", "hint": "an older one"}'
            ),
            "an older one",
        ),
        (launcher_frames.frame(launcher_frames.EVENT, b'["Unheard"]'), "an event that cannot be read"),
    ],
    ids=["older", "newer"],
)
async def test_a_master_of_another_version_is_not_said_to_be_missing(tree: Path, answer: bytes, said: str) -> None:
    follower = LiveFollower(tree / ".termite-socket")
    with trio.socket.socket(socket.AF_UNIX) as listening:
        await listening.bind(str(tree / ".termite-socket"))
        listening.listen()
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(follower.follow)
                master, _ = await listening.accept()
                await master.send(answer)
                while not follower.trouble:  # noqa: ASYNC110
                    await trio.sleep(0.01)
                nursery.cancel_scope.cancel()
                master.close()
    assert said in now_part(follower.state, 1e9, follower.trouble)


async def test_a_socket_that_a_killed_master_has_left_is_no_master(tree: Path) -> None:
    follower = LiveFollower(tree / ".termite-socket")
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tree / ".termite-socket"))
    with trio.move_on_after(0.2):
        await follower.follow()
    assert "No master runs" in now_part(follower.state, 1e9, follower.trouble)


def test_only_launchers_of_this_user_are_ended(tmp_path: Path) -> None:
    program = tmp_path / "termite"
    program.symlink_to("/bin/sleep")
    with subprocess.Popen(["/bin/sleep", "30"]) as other:
        assert not end_launcher(other.pid)
        assert other.poll() is None
        other.kill()
    assert not end_launcher(other.pid)
    for pid in (0, -1, 2**40, os.getpid()):
        assert not end_launcher(pid)
    copy = tmp_path / "bin" / "termite"
    copy.parent.mkdir()
    copy.write_bytes(Path("/bin/sleep").read_bytes())
    copy.chmod(0o755)
    with subprocess.Popen([copy, "30"]) as launcher:
        copy.unlink()  # as a new installation does
        assert end_launcher(launcher.pid)
        assert launcher.wait(5) == -signal.SIGTERM


def test_a_wrong_address_is_said_in_one_line(tree: Path) -> None:
    for words, said in (
        (["--http", "x:y"], "[HOST:]PORT"),
        (["--http", "192.0.2.7:1"], "cannot listen on 192.0.2.7:1"),
    ):
        done = subprocess.run([*WEB, *words], cwd=tree, capture_output=True, text=True, check=False, timeout=20)
        assert done.returncode == 100
        assert said in done.stderr
        assert "Traceback" not in done.stderr
