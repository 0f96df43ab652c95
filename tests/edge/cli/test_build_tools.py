"""Test how the source of a build directory is found in files that other tools have written."""

from pathlib import Path

import pytest

from termite.cli.build_commands.build_tools import find_source


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("CMakeCache.txt", "CMAKE_HOME_DIRECTORY:INTERNAL={}\n"),
        ("meson-info/meson-info.json", '{{"directories": {{"source": "{}"}}}}'),
        ("Makefile", "srcdir = {}\n"),
    ],
)
def test_a_build_directory_names_its_source_or_none(tmp_path: Path, name: str, content: str) -> None:
    source, build = tmp_path / "source", tmp_path / "build"
    source.mkdir()
    (build / name).parent.mkdir(parents=True)
    for text, found in ((str(source), source), ("../source", source), ("no\\u0000name", None), ("half\\ud800", None)):
        written = text if name.endswith("json") else text.encode().decode("unicode_escape")
        (build / name).write_bytes(content.format(written).encode("utf-8", "surrogatepass"))
        assert find_source(build) == found, text


def test_a_description_that_is_nested_too_deep_names_no_source(tmp_path: Path) -> None:
    (tmp_path / "meson-info").mkdir()
    (tmp_path / "meson-info/meson-info.json").write_text('{"directories": ' + "[" * 100_000)
    assert find_source(tmp_path) is None
