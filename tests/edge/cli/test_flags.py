"""Daemons and commands that need a disk or a process: start, log and interrupt."""

import logging
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from termite.cli import daemons
from termite.cli.logs.log_settings import set_up_logging
from termite.engine.errors import UserError
from termite.engine.host import preflight
from termite.engine.host.log_tail import LogTail
from termite.engine.host.native_programs import native_program
from termite.engine.model import JobNetwork, MachineFacts
from termite.engine.wire.identity import Identity
from termite.engine.wire.protocol.messages import OpenLease
from termite.engine.worker.mirror_homes import MirrorHome
from termite.engine.worker.mirror_process import _start_values
from termite.engine.worker.worker_daemon import _mirror_settings
from termite.fuse import mirror
from tests.unit.cli.test_flags import Run


@pytest.mark.parametrize("command", [daemons.coordinator, daemons.worker])
def test_a_daemon_that_cannot_start_says_why_and_exits_with_100(
    command: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemons, "start_log", lambda flags: None)
    assert command(["-secret", str(tmp_path / "none.txt"), "-port", "0"]) == 100
    said = capsys.readouterr().err
    assert re.match(r"termite-(coordinator|worker): ", said)
    assert "Traceback" not in said
    assert len(said.splitlines()) == 2


def test_a_private_network_needs_its_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(daemons, "PASTA_PLACES", ())
    assert daemons.job_network("allow", root=False) == JobNetwork(is_given=True)
    assert not daemons.job_network("deny", root=False).is_given
    with pytest.raises(UserError, match="apt-get install passt"):
        daemons.job_network("private", root=False)
    (tmp_path / "pasta").touch(mode=0o755)
    assert daemons.job_network("private", root=False).pasta == str(tmp_path / "pasta")


def test_mirrors_find_the_directories_of_a_worker_that_were_named_relatively(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for check in ("check_machine", "check_fuse", "check_sandbox", "check_readable_by_others"):
        monkeypatch.setattr(preflight, check, lambda *_, **__: None)
    monkeypatch.chdir(tmp_path)
    flags = daemons.worker_parser("termite-worker").parse_flags(["-cachedir", "cache", "-tmpdir", "tmp"])
    config = daemons.worker_config(flags, b"secret", LogTail())
    assert (config.cache, config.tmpdir) == (tmp_path / "cache", tmp_path / "tmp")


class StoreOpenedError(Exception):
    """The store is opened, with these limits. Nothing else of the mirror is needed here."""


async def test_the_limits_of_a_workers_store_reach_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def open_store(root: Path, max_bytes: int, max_files: int, proofs: object) -> None:
        raise StoreOpenedError(max_bytes, max_files)

    for check in ("check_machine", "check_fuse", "check_sandbox", "check_readable_by_others"):
        monkeypatch.setattr(preflight, check, lambda *_, **__: None)
    monkeypatch.setattr(mirror, "check_fuse", lambda *_, **__: None)
    monkeypatch.setattr(mirror, "Sandboxes", lambda *_: SimpleNamespace(setup=lambda: None))
    monkeypatch.setattr(mirror, "Cas", open_store)
    for name in ("cache", "scratch"):
        (tmp_path / name).mkdir()
    words = ["-cachedir", str(tmp_path), "-cache-size", "5G", "-cache-files", "777"]
    config = daemons.worker_config(daemons.worker_parser("termite-worker").parse_flags(words), b"secret", LogTail())
    settings = _mirror_settings(config, "w", MachineFacts())
    home = MirrorHome(None, tmp_path / "cache", tmp_path / "scratch")
    values = _start_values(settings, Identity("certificate", "key", "authority"), home, 3, 4)
    started = mirror.MirrorServer(values, SimpleNamespace(), tmp_path / "warm")  # type: ignore[arg-type]  # it says nothing
    request = OpenLease(1, "m", 1, 1000, 1000, b"t", 0, 0, "h", bytes(32))
    with pytest.raises(StoreOpenedError) as opened:
        await started._set_up(SimpleNamespace(), request)  # type: ignore[arg-type]  # nobody asks the master
    assert opened.value.args == (5 << 30, 777)


def test_a_command_that_is_interrupted_dies_of_the_signal() -> None:
    script = "from termite.cli.flags import run_command\ndef main(): raise KeyboardInterrupt\nrun_command('x', main)"
    assert subprocess.run([sys.executable, "-c", script]).returncode == -signal.SIGINT


def test_the_log_goes_to_the_end_of_a_file(tmp_path: Path) -> None:
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    try:
        set_up_logging("info", tmp_path / "log")
        logging.getLogger("termite").info("started port=%d", 7)
    finally:
        for handler in set(root.handlers) - set(before):
            root.removeHandler(handler)
            handler.close()
        root.setLevel(level)
    assert re.fullmatch(r"\d{4}-\S+ \S+ INFO +started port=7\n", (tmp_path / "log").read_text())


def test_a_log_that_cannot_be_written_is_a_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot write the log: Is a directory"):
        set_up_logging("info", tmp_path)


def test_a_native_program_is_looked_for_where_it_may_be(tmp_path: Path) -> None:
    (tmp_path / "termite-sandbox").touch()
    where = {"TERMITE_NATIVE": str(tmp_path)}
    assert native_program("termite-sandbox", where) == tmp_path / "termite-sandbox"
    with pytest.raises(UserError, match=f"termite-nosuch is not in {tmp_path}"):
        native_program("termite-nosuch", where)
