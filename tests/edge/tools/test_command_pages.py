"""The set-up writes man pages, and completions with which bash completes words."""

import subprocess
from pathlib import Path

import command_pages


def test_bash_completes_subcommands_and_flags(tmp_path: Path) -> None:
    assert command_pages.main(tmp_path) == 0
    made = {path.name for path in (tmp_path / "man" / "man1").iterdir()}
    assert {"termite.1", "termite-shell.1", "termite-make.1", "termite-ctl.1", "termite-ctl-why.1"} <= made
    assert "TERMITE_ROOT" in (tmp_path / "man" / "man1" / "termite-make.1").read_text()
    script = """
source "$1"
ask() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=(); _shtab_termite_ctl; echo "${COMPREPLY[@]}"; }
ask termite-ctl sta
ask termite-ctl logs --fol
ask termite-ctl cache sh
"""
    file = tmp_path / "completions" / "bash" / "termite-ctl"
    done = subprocess.run(["bash", "-c", script, "bash", file], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:3] == ["status start", "--follow", "show"], done
