"""A log is rotated when it is full, also if several processes write it, and no record is lost."""

import errno
import fcntl
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from termite.cli.logs import rotated_file
from termite.cli.logs.rotated_file import LogLimits, RotatedFile

WRITER = """
import logging, sys
from pathlib import Path
from termite.cli.logs.rotated_file import LogLimits, RotatedFile
log = logging.Logger("x")
log.addHandler(RotatedFile(Path(sys.argv[1]), LogLimits(4000, 100)))
for number in range(300):
    log.info("%s %03d %s", sys.argv[2], number, "." * 40)
"""


@contextmanager
def logger(path: Path, max_bytes: int, kept: int) -> Iterator[Callable[[str], None]]:
    handler = RotatedFile(path, LogLimits(max_bytes, kept))
    log = logging.Logger("test")
    log.addHandler(handler)
    try:
        yield log.warning
    finally:
        handler.close()


def files(directory: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in directory.iterdir()}


def test_the_oldest_file_goes(tmp_path: Path) -> None:
    with logger(tmp_path / "log", 9, 2) as log:
        for word in ("one", "two", "three", "four", "five", "six", "seven"):
            log(word)
    assert files(tmp_path) == {"log": "seven\n", "log.1": "five\nsix\n", "log.2": "four\n"}
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600


def test_without_older_files_or_without_a_limit(tmp_path: Path) -> None:
    with logger(tmp_path / "log", 5, 0) as log:
        log("one")
        log("two")
    assert files(tmp_path) == {"log": "two\n"}
    with logger(tmp_path / "log", 0, 3) as log:
        for _ in range(100):
            log("more")
    assert files(tmp_path) == {"log": "two\n" + "more\n" * 100}


def test_a_record_larger_than_a_file_is_written_whole(tmp_path: Path) -> None:
    with logger(tmp_path / "log", 5, 1) as log:
        log("x" * 100)
        log("y")
    assert files(tmp_path) == {"log.1": "x" * 100 + "\n", "log": "y\n"}


def test_processes_that_write_one_log_lose_no_record_and_mix_no_line(tmp_path: Path) -> None:
    path = tmp_path / "log"
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, path, name]) for name in "abc"]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    lines = [line for text in files(tmp_path).values() for line in text.splitlines()]
    assert sorted(lines) == sorted(f"{name} {number:03} {'.' * 40}" for name in "abc" for number in range(300))
    assert len(files(tmp_path)) > 3


def test_a_stopped_process_that_holds_the_lock_stops_nobody(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with logger(path, 5, 1) as log:
        log("one")
        with path.open() as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            log("two")
        assert files(tmp_path) == {"log": "one\ntwo\n"}
        log("three")
    assert files(tmp_path) == {"log.1": "one\ntwo\n", "log": "three\n"}


def test_a_file_that_others_move_away_or_remove_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with logger(path, 0, 1) as log:
        log("one")
        path.rename(tmp_path / "old")
        log("two")
        path.unlink()
        log("three")
    assert files(tmp_path) == {"old": "one\n", "log": "three\n"}


def test_standard_error_follows_the_log_that_it_leads_to(tmp_path: Path) -> None:
    script = """
import logging, os, sys
from pathlib import Path
from termite.cli.logs import rotated_file
from termite.cli.logs.rotated_file import LogLimits, RotatedFile
path = Path(sys.argv[1])
log = logging.Logger("x")
log.addHandler(RotatedFile(path, LogLimits(5, 1)))
log.info("one")
log.info("two")
os.write(2, b"crash\\n")
"""
    path = tmp_path / "log"
    with path.open("ab") as output:
        subprocess.run([sys.executable, "-c", script, path], stderr=output, check=True)
    assert files(tmp_path) == {"log.1": "one\n", "log": "two\ncrash\n"}


def test_a_pipe_is_written_and_never_rotated(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with logger(path, 5, 1) as log:
        for word in ("one", "two", "three"):
            log(word)
    assert os.read(reader, 100) == b"one\ntwo\nthree\n"
    os.close(reader)
    assert [entry.name for entry in tmp_path.iterdir()] == ["fifo"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_ends_nobody() -> None:
    with logger(Path("/dev/full"), 5, 1) as log:
        log("one")


@pytest.mark.logs("log-not-rotated")
def test_a_log_in_a_directory_that_is_closed_grows_on_and_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(name: str, older: str) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), name)

    monkeypatch.setattr(os, "rename", refuse)  # as in a directory of root; root itself may rename everywhere
    path = tmp_path / "log"
    handler = RotatedFile(path, LogLimits(9, 2))
    logging.getLogger().addHandler(handler)
    try:
        for word in ("one", "two", "three", "four"):
            logging.getLogger().warning(word)
        with path.open() as other:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()
    told = f"log-not-rotated path={path} reason='Permission denied'"
    assert files(tmp_path) == {"log": f"one\ntwo\n{told}\nthree\nfour\n"}


@pytest.mark.needs_root("makes a link of another user")
@pytest.mark.parametrize("comes_late", [False, True])
def test_the_link_of_another_user_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, comes_late: bool
) -> None:
    (tmp_path / "private").touch()
    link = tmp_path / "log"
    link.symlink_to("private")
    with logger(link, 0, 0) as log:
        log("one")
    os.lchown(link, 61000, 61000)
    if comes_late:  # the check was made before somebody put it there
        monkeypatch.setattr(rotated_file, "is_own_link", lambda path: False)
    with pytest.raises(OSError):
        RotatedFile(link, LogLimits())
    assert (tmp_path / "private").read_text() == "one\n"
