"""The prose checker reads tracked files, and exits with 1."""

import subprocess
import sys
from pathlib import Path

from tests.unit.tools.test_check_prose import WIDE

CHECKOUT = Path(__file__).resolve().parents[3]


def test_it_names_file_and_line_and_fails(tmp_path: Path) -> None:
    wide, fine = tmp_path / "wide.md", tmp_path / "fine.md"
    wide.write_text(f"# Title\n\n{WIDE} more\n")
    fine.write_text("# Title\n")
    program = [sys.executable, str(CHECKOUT / "tools" / "check_prose.py")]
    done = subprocess.run([*program, str(fine), str(wide)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, f"{wide}:3: a line of 105 columns: 100 at most for prose\n")
    assert subprocess.run([*program, str(fine)], capture_output=True, check=False).returncode == 0
