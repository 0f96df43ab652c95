"""Test the file of rules of a tree that somebody else has made."""

import os
from collections.abc import Callable
from errno import EACCES, EIO, ENOENT, ESTALE
from pathlib import Path
from typing import Any

import pytest

from termite.engine import look_calls
from termite.engine.decide.logic.rules import FILE_NAME, RuleBook
from termite.engine.decide.rule_file import RuleFile
from termite.engine.errors import Reason, UserError


@pytest.mark.logs("rules-rejected")
@pytest.mark.parametrize("what", ["FIFO", "a huge file", "directory", "link to a device"])
def test_a_file_that_cannot_be_rules_is_an_error_at_once(tmp_path: Path, what: str) -> None:
    path, rules = tmp_path / FILE_NAME, RuleFile(tmp_path, RuleBook(()))
    rules.refresh()
    match what:
        case "FIFO":
            os.mkfifo(path)
        case "a huge file":
            path.touch()
            os.truncate(path, 1 << 42)
        case "directory":
            path.mkdir()
        case _:
            path.symlink_to("/dev/zero")
    error = rules.refresh()
    assert error is not None
    assert FILE_NAME in str(error)
    assert rules.refresh() is None, "it is told once"


@pytest.mark.logs("rules-rejected")
def test_no_build_starts_if_no_good_version_was_ever_read(tmp_path: Path) -> None:
    file, book = tmp_path / FILE_NAME, RuleBook(())
    file.write_text('[{"Regexp": "^ar ", "Locl": true}]')
    rules = RuleFile(tmp_path, book)
    for _ in range(2):
        with pytest.raises(UserError, match="no key Locl: write Local") as refused:
            rules.require()
        assert refused.value.reason is Reason.BAD_RULES and str(file) in refused.value.hint
    assert rules.remark.endswith("none of its rules is in force")
    file.write_text('[{"Regexp": "^ar ", "Local": true}]')
    rules.require()
    assert rules.remark == ""
    file.write_text("[")
    rules.require()
    assert rules.remark.endswith("the last good rules stay in force") and len(book.rules) == 1


@pytest.mark.logs("rules-rejected")
def test_that_there_was_no_file_is_a_good_version(tmp_path: Path) -> None:
    rules = RuleFile(tmp_path, RuleBook(()))
    rules.require()
    (tmp_path / FILE_NAME).write_text("[")
    rules.require()
    assert rules.remark.endswith("the last good rules stay in force")


def test_no_build_starts_while_nobody_knows_what_is_in_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / FILE_NAME).write_text("[]")
    monkeypatch.setattr(look_calls, "stat", failing(look_calls.stat, EIO, times=1))
    rules = RuleFile(tmp_path, RuleBook(()))
    with pytest.raises(UserError, match=os.strerror(EIO)):
        rules.require()
    rules.require()
    assert rules.error is None


def failing(call: Callable[..., Any], errno: int, times: int) -> Callable[..., Any]:
    """Return a call that fails so many times first."""
    left = [None] * times

    def fail(*args: Any, **options: Any) -> Any:
        if left:
            left.pop()
            raise OSError(errno, os.strerror(errno))
        return call(*args, **options)

    return fail


@pytest.mark.logs("rules-rejected")
@pytest.mark.parametrize("errno", [EIO, ESTALE, EACCES])
@pytest.mark.parametrize("call", ["stat", "open"])
def test_rules_stay_in_force_while_nobody_knows_what_is_in_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, errno: int
) -> None:
    (tmp_path / FILE_NAME).write_text('[{"Regexp": "gcc", "Local": true}]')
    book = RuleBook(())
    rules = RuleFile(tmp_path, book)
    rules.refresh()
    before = book.rules
    assert len(before) == 1
    (tmp_path / FILE_NAME).write_text('[{"Regexp": "gcc", "Local": true}, {"Regexp": "ld", "Local": true}]')
    monkeypatch.setattr(look_calls, call, failing(getattr(look_calls, call), errno, times=2))
    error = rules.refresh()
    assert error is not None and os.strerror(errno) in str(error)
    assert rules.error is error
    assert rules.refresh() is None, "it is told once"
    assert book.rules == before
    assert rules.refresh() is None
    assert len(book.rules) == 2, "the next look heals"
    assert rules.error is None


def test_a_file_that_is_gone_has_no_rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / FILE_NAME).write_text('[{"Regexp": "gcc", "Local": true}]')
    book = RuleBook(())
    rules = RuleFile(tmp_path, book)
    rules.refresh()
    monkeypatch.setattr(look_calls, "stat", failing(look_calls.stat, ENOENT, times=1))
    assert rules.refresh() is None
    assert [rule.source for rule in book.rules] == ["built-in default"]
    assert rules.refresh() is None
    assert "gcc" in [rule.regexp for rule in book.rules]
