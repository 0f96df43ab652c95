"""Test which commands this machine could execute at all, told from the files on its disk."""

import errno
import os
from pathlib import Path

import pytest

from termite.engine.master.remote_runs.startable import is_startable
from termite.engine.model import How, Invocation


def is_script_startable(directory: Path, first_line: str) -> bool:
    script = directory / "script"
    script.write_text(f"{first_line}\n")
    script.chmod(0o755)
    return is_startable(Invocation(("script",), "./script", False, str(directory), {}, How.DIRECT))


@pytest.mark.parametrize("line", ["#!/bin/sh", "#! \t/bin/sh\t-e", "#!", "# a comment", ""])
def test_a_script_with_a_good_interpreter_or_none_is_startable(tmp_path: Path, line: str) -> None:
    assert is_script_startable(tmp_path, line)


@pytest.mark.parametrize("line", ["#!/no/such -e", "#!/bin/sh\r", "#!/bin/sh\v-e", f"#!/{'n' * 252}"])
def test_a_script_whose_interpreter_does_not_exist_is_not_startable(tmp_path: Path, line: str) -> None:
    assert not is_script_startable(tmp_path, line)


@pytest.mark.parametrize("length", [127, 253, 255, 1001])
def test_a_script_with_a_long_interpreter_is_startable(tmp_path: Path, length: int) -> None:
    """The kernel takes interpreters of up to 253 bytes. Shells run the other scripts themselves."""
    assert is_script_startable(tmp_path, f"#!/bin/{'./' * ((length - 7) // 2)}sh")


def test_a_program_that_cannot_be_looked_at_must_be_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_script_startable(tmp_path, "#!/bin/sh")

    def fail(path: str) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", fail)
        assert is_startable(Invocation(("script",), "./script", False, str(tmp_path), {}, How.DIRECT))
