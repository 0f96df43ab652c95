"""The name of a directory, which an archive may have brought, controls no terminal."""

import os
import subprocess
import sys
from pathlib import Path

from termite.cli.doctor.finding import Finding, Level, shown_finding

NAME = "a\x1b]0;title\x07b\u202e"


def test_commands_about_a_master_escape_the_path_of_its_tree(tmp_path: Path) -> None:
    tree = tmp_path / NAME
    tree.mkdir()
    env = {**os.environ, "XDG_STATE_HOME": str(tmp_path / "state"), "XDG_CACHE_HOME": str(tmp_path / "cache")}

    def ctl(*words: str) -> None:
        command = [str(Path(sys.executable).with_name("termite-ctl")), *words]
        done = subprocess.run(command, cwd=tree, env=env, capture_output=True, timeout=60, check=True)
        assert b"\\x1b]0;title\\x07b\\u202e" in done.stdout
        assert b"\x1b" not in done.stdout + done.stderr

    ctl("shutdown")
    try:
        ctl("start", ".")
        ctl("start", ".")
    finally:
        ctl("shutdown")


def test_the_doctor_escapes_what_a_finding_is_about() -> None:
    assert "\x1b" not in shown_finding(Finding("farm", NAME, Level.FAILURE, NAME, NAME))
