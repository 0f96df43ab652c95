"""The address of the pages is in a file of the user's, and front ends say it."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from termite.cli.page_startup.pages_address import PageAddress
from termite.cli.places import records_directory, web_address_file
from termite.cli.written_files.web_address import read_address, remove_address, write_address
from tests.synthetic_builds import synthetic_history, write_history

URL = "http://127.0.0.1:1/?token=x"
WEB = [sys.executable, "-m", "termite.cli.ctl", "web", "--http", "0"]
# The front end blocks signals and starts make, so that it needs a process of its own. Its master
# does nothing.
BUILD = """
import os, sys
from pathlib import Path
from termite.cli.build_commands import front_end, make

class Master:
    tree = Path(sys.argv[1])
    pid = os.getpid()

    def ask(self, *words, **more):
        return {"fallbacks": {}, "local": 0, "remote": 1, "named": []}

front_end._prepare = lambda *words, **more: (Master(), ["sh", "-c", "echo made >&2"], dict(os.environ))
front_end.start_sweep = lambda: None
try:
    front_end.build_with(make.MAKE, "make", [], "")
finally:
    print("termite.cli.written_files.web_address" in sys.modules)
"""


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    for name in ("TERMITE_SOCKET", "TERMITE_VERBOSE"):
        monkeypatch.delenv(name, raising=False)
    root = tmp_path / "tree"
    root.mkdir()
    return root


def built(tree: Path, **env: str) -> tuple[list[str], bool]:
    """Build; return the lines on stderr, and whether the module for the file was imported."""
    done = subprocess.run(
        [sys.executable, "-c", BUILD, tree], env={**os.environ, **env}, capture_output=True, text=True, check=True
    )
    return done.stderr.splitlines(), done.stdout == "True\n"


def built_on_a_terminal(tree: Path) -> list[str]:
    terminal, its_end = os.openpty()
    with open(terminal, "rb", buffering=0) as seen:
        subprocess.run([sys.executable, "-c", BUILD, tree], stderr=its_end, stdout=subprocess.DEVNULL, check=True)
        shown = seen.read(65536) or b""
    os.close(its_end)
    return shown.decode().splitlines()


def test_the_address_is_written_for_its_user_as_long_as_pages_are_served(tree: Path) -> None:
    write_history(records_directory(tree), synthetic_history(1, 20))
    file = web_address_file(tree)
    for end in (signal.SIGTERM, signal.SIGKILL):
        with subprocess.Popen(WEB, cwd=tree, stdout=subprocess.PIPE, text=True) as pages:
            try:
                assert pages.stdout is not None
                url = pages.stdout.readline().split()[3]
                assert read_address(file) == url
                assert file.stat().st_mode & 0o777 == 0o600
                assert file.parent.stat().st_mode & 0o777 == 0o700
            finally:
                pages.send_signal(end)
                pages.wait(10)
        assert file.exists() == (end == signal.SIGKILL)
        assert read_address(file) == ""


def test_a_build_says_where_its_pages_are(tree: Path) -> None:
    line = f"termite: started pages of this build: {URL}"
    assert built(tree, TERMITE_VERBOSE="1")[1] is False
    write_address(web_address_file(tree), URL)
    lines, is_imported = built(tree, TERMITE_VERBOSE="1")
    assert is_imported
    assert (lines[0], lines[1], lines[-1]) == (line, "made", line)
    assert built(tree)[0] == [line, "made", line]
    assert built_on_a_terminal(tree) == [line, "made", line]
    remove_address(web_address_file(tree))
    assert line not in built(tree, TERMITE_VERBOSE="1")[0]


@pytest.mark.parametrize(
    "text", ["", "x", "0 http://x", "-1 http://x", "1e9 x", f"{2**40} http://x", "\xff\n", "4194304 x"]
)
def test_a_file_that_nobody_keeps_is_no_address(tree: Path, text: str) -> None:
    file = web_address_file(tree)
    file.parent.mkdir(parents=True)
    file.write_text(text, encoding="latin-1")
    assert read_address(file) == ""
    remove_address(file)
    assert file.exists()


@pytest.mark.parametrize(
    ("host", "names", "shown"),
    [
        ("127.0.0.1", (), "127.0.0.1"),
        ("127.0.0.1", ("buildhost",), "127.0.0.1"),
        ("0.0.0.0", ("buildhost", "other"), "buildhost"),
        ("0.0.0.0", (), socket.gethostname()),
        ("::", (), socket.gethostname()),
        ("::1", (), "[::1]"),
        ("2001:db8::1", (), "[2001:db8::1]"),
        ("buildhost.example", (), "buildhost.example"),
    ],
)
def test_the_shown_address_is_one_that_a_browser_can_open(host: str, names: tuple[str, ...], shown: str) -> None:
    assert PageAddress(host, 0).browser_host(names) == shown
