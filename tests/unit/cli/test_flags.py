"""Command lines: both spellings, one line for an error, help for a person, and addresses."""

import importlib.metadata
import signal
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from termite.cli import daemons, flags
from termite.cli.flags import with_two_dashes
from termite.cli.master_command import master_parser
from termite.cli.parser import Parser
from termite.engine.errors import UserError
from termite.engine.host.service_manager import ServiceManager
from termite.engine.model import StoreLimits
from termite.engine.wire.addresses import join_address, split_address
from tests.unit.tables import each_row

Run = Callable[[list[str]], int]


def parser() -> Parser:
    made = Parser("termite-test", "Tests.", "termite-test -jobs 4")
    made.add_argument("--jobs", type=int, default=2)
    made.add_argument("--logfile", default="")
    return made


@pytest.mark.parametrize("words", [["-jobs", "4"], ["--jobs", "4"], ["-jobs=4"], ["--jobs=4"]])
def test_a_flag_may_have_one_dash_or_two(words: list[str]) -> None:
    assert parser().parse_flags(words).jobs == 4


def test_only_flags_are_respelled() -> None:
    assert with_two_dashes(["-h", "-j4", "-1", "-", "x-y", "-X", "--", "-jobs"]) == [
        "-h", "--j4", "-1", "-", "x-y", "-X", "--", "-jobs",
    ]  # fmt: skip


def test_a_wrong_value_says_what_is_wanted() -> None:
    coordinator, master = daemons.coordinator_parser("termite-coordinator"), master_parser()
    for made, words, said in (
        (coordinator, ["-port", "22x"], "-port wants a port, from 0 to 65535, not '22x'"),
        (coordinator, ["-port", "65536"], "-port wants a port, from 0 to 65535, not '65536'"),
        (master, ["-coordinator"], "-coordinator has no value: write -coordinator HOST[:PORT]"),
        (master, ["-tmp"], "-tmp has no value: write -tmp shared|private"),
        (master, ["-short", "soon"], "-short wants a number of milliseconds, or auto, not 'soon'"),
        (parser(), ["-jobs", "many"], "-jobs wants a whole number, not 'many'"),
    ):
        with pytest.raises(UserError) as caught:
            made.parse_flags(words)
        assert caught.value.message == said


@pytest.mark.parametrize("words", [["-jobs"], ["-jobs", "many"], ["-nosuch"], ["--job", "4"], ["word"]])
def test_a_wrong_command_line_is_a_line_with_a_hint(words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        parser().parse_flags(words)
    assert caught.value.hint == "see termite-test --help" or caught.value.message.endswith(": write -jobs")


@each_row(
    ("text", "size_bytes"),
    [("1", 1), ("4096", 4096), ("2k", 2048), ("500M", 500 << 20), ("20G", 20 << 30), ("3T", 3 << 40)],
)
def test_a_size_is_a_number_of_bytes_or_has_a_unit(text: str, size_bytes: int) -> None:
    assert daemons.worker_parser("termite-worker").parse_flags(["-cache-size", text]).cache_size == size_bytes


@each_row("text", ["", "0", "-1G", "G", "1.5G", "20GB", "20X", "9999999999T", "1 G", "\u0664G", "0M"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="size"):
        daemons.worker_parser("termite-worker").parse_flags(["-cache-size", text])


def test_the_limits_of_the_store_have_defaults() -> None:
    parsed = daemons.worker_parser("termite-worker").parse_flags([])
    assert StoreLimits(parsed.cache_size, parsed.cache_files) == StoreLimits()


def test_the_version_is_the_projects() -> None:
    top = Path(__file__).parents[3]
    project = tomllib.loads((top / "pyproject.toml").read_text())
    assert project["project"]["dynamic"] == ["version"]
    source = project["tool"]["scikit-build"]["metadata"]["version"]["input"]
    assert f'__version__ = "{flags.VERSION}"' in (top / source).read_text()
    assert importlib.metadata.version("termite") == flags.VERSION


@pytest.mark.parametrize("command", [daemons.coordinator, daemons.worker])
@pytest.mark.parametrize("words", [["-version"], ["--version"]])
def test_every_daemon_says_its_version(command: Run, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        command(words)
    assert caught.value.code == 0
    assert flags.VERSION in capsys.readouterr().out


@pytest.mark.parametrize("command", [daemons.coordinator, daemons.worker])
def test_every_daemon_explains_itself(command: Run, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command(["--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "Example:" in said
    assert "(default: secret.txt)" in said
    assert "(default: )" not in said
    assert "None" not in said


@pytest.fixture(autouse=True)
def _no_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave alone what a daemon of this user, which may run beside the tests, has written down."""
    monkeypatch.setattr(daemons, "start_sweep", lambda: None)


def test_a_daemon_ends_well_on_a_signal(capsys: pytest.CaptureFixture[str]) -> None:
    cleaned = False

    async def serve(task_status: trio.TaskStatus[str]) -> None:
        nonlocal cleaned
        task_status.started("here:1")
        signal.raise_signal(signal.SIGTERM)
        try:
            await trio.sleep_forever()
        finally:
            cleaned = True

    assert daemons.run_daemon("termite-test", serve, "listens on {address}", {}) == 0
    assert cleaned
    assert capsys.readouterr().out == "termite-test: listens on here:1\n"


def test_a_service_manager_learns_nothing_of_the_pages_token(capsys: pytest.CaptureFixture[str]) -> None:
    """systemd shows the status of a unit to every user of the machine."""
    statuses = []

    class Manager(ServiceManager):
        async def notify_ready(self, status: str) -> None:
            statuses.append(status)

    async def serve(task_status: trio.TaskStatus[str]) -> None:
        task_status.started("here:1")
        await trio.testing.wait_all_tasks_blocked()

    announce = "listens on {address}\ntermite-test: pages at http://here:2/?token=secret"
    assert daemons.run_daemon("termite-test", serve, announce, {}, Manager("")) == 0
    assert statuses == ["listens on here:1"]
    assert "token=secret" in capsys.readouterr().out


def test_a_user_error_while_it_serves_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    async def serve(task_status: trio.TaskStatus[str]) -> None:
        async with trio.open_nursery():
            raise UserError("port 1 is in use", hint="choose another")

    assert daemons.run_daemon("termite-test", serve, "{address}", {}) == 100
    assert capsys.readouterr().err == "termite-test: port 1 is in use\ntermite-test: choose another\n"


def test_run_command_reports_and_counts_for_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    def fails() -> int:
        raise UserError("no")

    assert flags.run_command("termite-x", fails) == 100
    assert capsys.readouterr().err == "termite-x: no\n"
    assert flags.run_command("termite-x", lambda: 3) == 3


@each_row(
    ("text", "parts"),
    [
        ("host:1", ("host", 1)),
        ("host", ("host", 9)),
        (":7", ("", 7)),
        ("[::1]:5", ("::1", 5)),
        ("[::1]", ("::1", 9)),
        ("::1", ("::1", 9)),
        ("10.0.0.1:65535", ("10.0.0.1", 65535)),
    ],
)
def test_an_address_has_a_host_and_a_port(text: str, parts: tuple[str, int]) -> None:
    assert split_address(text, 9) == parts
    assert split_address(join_address(*parts), 9) == parts


@each_row("text", ["host:", "host:x", "host:0", "host:65536", "host:-1", "host:٣", "a:b:c", "[host]", "1::2::3"])
def test_what_is_no_address_is_a_line(text: str) -> None:
    with pytest.raises(UserError, match="is not an address"):
        split_address(text, 9)
