"""The store of short commands, on a disk."""

import os
from pathlib import Path

import pytest

from termite.engine.decide.short_commands import ShortCommands, key_of
from tests.unit.engine.decide.test_short_commands import CONFIGURE, command


def test_the_next_master_knows_what_the_last_one_knew(tmp_path: Path) -> None:
    store = tmp_path / "short-p"
    commands = ShortCommands(1.0, store)
    commands.record_remote(key_of(command("gcc \udcff.c")), 0.02, 0.004)
    commands.save()
    assert ShortCommands(1.0, store).took_s(command("gcc \udcff.c")) == 0.02
    assert sorted(os.listdir(tmp_path)) == ["saving", "short-p"]
    assert os.listdir(tmp_path / "saving") == []


@pytest.mark.logs("short-commands-not-saved", "short-commands-unreadable")
def test_a_store_that_is_rubbish_or_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    (tmp_path / "short-p").write_bytes(b"\xc1rubbish")
    assert ShortCommands(1.0, tmp_path / "short-p").took_s(CONFIGURE) is None
    nowhere = ShortCommands(1.0, tmp_path / "short-p" / "below-a-file")
    nowhere.record_remote(key_of(CONFIGURE), 0.02, 0.004)
    nowhere.save()


def test_what_was_forgotten_is_forgotten_in_the_store_too(tmp_path: Path) -> None:
    commands = ShortCommands(1.0, tmp_path / "short-p")
    commands.record_remote(key_of(CONFIGURE), 0.02, 0.004)
    commands.save()
    commands.forget(key_of(CONFIGURE))
    commands.save()
    assert ShortCommands(1.0, tmp_path / "short-p").took_s(CONFIGURE) is None


def test_stores_of_trees_that_are_long_gone_are_removed(tmp_path: Path) -> None:
    for name, days in (("short-old", 61), ("short-new", 1), ("hashes", 400)):
        (tmp_path / name).touch()
        seconds = (tmp_path / name).stat().st_mtime - days * 24 * 3600
        os.utime(tmp_path / name, (seconds, seconds))
    commands = ShortCommands(1.0, tmp_path / "short-p")
    commands.record_remote(key_of(CONFIGURE), 0.02, 0.004)
    commands.save()
    assert sorted(os.listdir(tmp_path)) == ["hashes", "saving", "short-new", "short-p"]
