"""The store of the command memory, on a disk."""

import os
from pathlib import Path

import msgspec
import pytest

from termite.engine.decide.command_memory import CommandMemory, key_of
from termite.engine.decide.refused_commands import Refusal, RefusalMemory
from termite.engine.decide.short_commands import ShortCommands
from termite.engine.errors import Reason
from tests.unit.engine.decide.test_short_commands import CONFIGURE, command

ODD = command("gcc \udcff.c")
REFUSED = Refusal(Reason.WRITES_OUTSIDE, "/srv/\udcff")


def took_s(store: Path) -> float | None:
    return ShortCommands(1.0, CommandMemory(store)).took_s(ODD)


def save(store: Path) -> CommandMemory:
    memory = CommandMemory(store)
    ShortCommands(1.0, memory).record_remote(key_of(ODD), 0.02, 0.004)
    RefusalMemory(memory).record(key_of(CONFIGURE), REFUSED, 1000.0)
    memory.save()
    return memory


def test_the_next_master_knows_what_the_last_one_knew(tmp_path: Path) -> None:
    save(tmp_path / "short-p")
    assert took_s(tmp_path / "short-p") == 0.02
    commands = RefusalMemory(CommandMemory(tmp_path / "short-p"))
    assert commands.are_known
    assert commands.find(key_of(CONFIGURE), 1001.0) == REFUSED
    assert sorted(os.listdir(tmp_path)) == ["saving", "short-p"]
    assert os.listdir(tmp_path / "saving") == []


def test_a_store_that_knows_short_commands_only_is_read(tmp_path: Path) -> None:
    text, whole = key_of(ODD)
    (tmp_path / "short-p").write_bytes(msgspec.msgpack.encode(({whole: 0.5}, {text: whole})))
    assert took_s(tmp_path / "short-p") == 0.5


@pytest.mark.logs("short-commands-not-saved", "short-commands-unreadable")
def test_a_store_that_is_rubbish_or_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    (tmp_path / "short-p").write_bytes(b"\xc1rubbish")
    assert took_s(tmp_path / "short-p") is None
    save(tmp_path / "short-p" / "below-a-file")


def test_what_was_forgotten_is_forgotten_in_the_store_too(tmp_path: Path) -> None:
    memory = save(tmp_path / "short-p")
    ShortCommands(1.0, memory).forget(key_of(ODD))
    RefusalMemory(memory).forget(key_of(CONFIGURE))
    memory.save()
    assert took_s(tmp_path / "short-p") is None
    assert not RefusalMemory(CommandMemory(tmp_path / "short-p")).are_known


def test_stores_of_trees_that_are_long_gone_are_removed(tmp_path: Path) -> None:
    for name, days in (("short-old", 61), ("short-new", 1), ("hashes", 400)):
        (tmp_path / name).touch()
        seconds = (tmp_path / name).stat().st_mtime - days * 24 * 3600
        os.utime(tmp_path / name, (seconds, seconds))
    save(tmp_path / "short-p")
    assert sorted(os.listdir(tmp_path)) == ["hashes", "saving", "short-new", "short-p"]
