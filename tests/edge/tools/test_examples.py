"""Examples that are read from a disk."""

from pathlib import Path

import pytest

from projects import ProjectError, read_project


def test_an_example_that_does_not_say_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "example.toml").write_text('title = "x"\npackage = "x"\nbuild = ["make"]\n')
    with pytest.raises(ProjectError, match="remote"):
        read_project(tmp_path / "example.toml")
