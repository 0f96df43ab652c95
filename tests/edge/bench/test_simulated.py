"""Loads of jobs make the directories that their results need."""

from pathlib import Path

from bench.load import make_directories, output_path


def test_every_job_of_a_load_has_a_directory_for_its_result(tmp_path: Path) -> None:
    make_directories(tmp_path, "out", 250)
    paths = [Path("/") / output_path(tmp_path, "out", number) for number in range(250)]
    assert len(set(paths)) == 250
    assert all(path.parent.is_dir() for path in paths)
