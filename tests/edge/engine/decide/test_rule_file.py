"""Test the file of rules of a tree that somebody else has made."""

import os
from pathlib import Path

import pytest

from termite.engine.decide.logic.rules import FILE_NAME, RuleBook
from termite.engine.decide.rule_file import RuleFile


@pytest.mark.logs("rules-rejected")
@pytest.mark.parametrize("what", ["FIFO", "a huge file", "directory", "link to a device"])
def test_a_file_that_cannot_be_rules_is_an_error_at_once(tmp_path: Path, what: str) -> None:
    path = tmp_path / FILE_NAME
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
    rules = RuleFile(tmp_path, RuleBook(()))
    error = rules.refresh()
    assert error is not None
    assert FILE_NAME in str(error)
    assert rules.refresh() is None, "it is told once"
