"""bench/results: only files that a document cites, and every file that one cites."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from bench import report
from bench.__main__ import _flags, _says_what_is_measured

CHECKOUT = Path(__file__).resolve().parents[3]
DOCUMENTS = [CHECKOUT / "README.md", *sorted((CHECKOUT / "docs").rglob("*.md"))]

# A document cites a file by its name, or by the first seven digits or more of the measured commit.
FILE = re.compile(r"\b\d{4}-\d\d-\d\dT\d{6}Z-([0-9a-f]{10})\b")
COMMIT = re.compile(r"\b(?=[0-9a-f]*\d)[0-9a-f]{7,10}\b")
# "7c64c87 to 6a6af38" cites all files from the first file of 7c64c87 to the last one of 6a6af38.
RANGE = re.compile(rf"({COMMIT.pattern}) to ({COMMIT.pattern})")
# "(1.01-1.30; 25; e13665a)" is a figure, whose file must exist.
FIGURE = re.compile(rf"; ({COMMIT.pattern})\)")


def cited_files(texts: Iterable[str], names: Iterable[str]) -> set[str]:
    """Return those of the names that a text cites."""
    ordered = sorted(names)
    found = set()
    for text in texts:
        commits = COMMIT.findall(text)
        found |= {name for name in ordered if name in text or _is_of(name, commits)}
        for first, last in RANGE.findall(text):
            inside = [at for at, name in enumerate(ordered) if _is_of(name, [first, last])]
            found |= set(ordered[inside[0] : inside[-1] + 1]) if inside else set()
    return found


def missing_files(texts: Mapping[str, str], names: Iterable[str]) -> list[str]:
    """Return cited files and commits of figures that have no file, with their document."""
    have = list(names)
    missing = []
    for document, text in texts.items():
        missing += [f"{document}: {found[0]}" for found in FILE.finditer(text) if f"{found[0]}.json" not in have]
        commits = FIGURE.findall(text)
        missing += [f"{document}: {one}" for one in commits if not any(_is_of(name, [one]) for name in have)]
    return missing


def _is_of(name: str, commits: Iterable[str]) -> bool:
    measured = Path(name).stem.rpartition("-")[2]
    return any(measured.startswith(commit) for commit in commits)


def test_each_file_is_cited_and_each_cited_file_exists() -> None:
    names = {path.name for path in report.KEPT.iterdir()}
    texts = {str(path.relative_to(CHECKOUT)): path.read_text() for path in DOCUMENTS}
    assert names - cited_files(texts.values(), names) == set(), "docs/develop/performance.md must cite them"
    assert missing_files(texts, names) == []


A, B, C = (f"2026-11-2{day}T000000Z-{commit * 10}.json" for day, commit in enumerate("1a3"))


@pytest.mark.parametrize(
    ("text", "cited"),
    [
        ("", set()),
        (f"seen in `{B}`", {B}),
        ("LLVM (5; 1111111)", {A}),
        ("together, 1111111 to 3333333", {A, B, C}),
        ("acts on facade, 7777777 and 20261121", set()),
    ],
)
def test_a_file_is_cited_by_name_by_commit_or_in_a_range(text: str, cited: set[str]) -> None:
    assert cited_files([text], [A, B, C]) == cited


def test_a_cited_file_that_is_not_there_is_named() -> None:
    assert missing_files({"x.md": f"(5; 1111111), `{A}`, mended by 7777777"}, [A]) == []
    assert missing_files({"x.md": f"(5; 1111111), `{A}`"}, [B]) == [f"x.md: {Path(A).stem}", "x.md: 1111111"]


def test_results_are_kept_only_on_request() -> None:
    kept = "bench/results"
    assert report.KEPT.relative_to(CHECKOUT) == Path(kept)
    assert report.RESULTS.relative_to(CHECKOUT) == Path("build") / kept
    assert (_flags([]).results, _flags(["--keep"]).results) == (report.RESULTS, report.KEPT)


def test_keeping_a_result_does_not_change_its_settings() -> None:
    assert not _says_what_is_measured("keep", True)
    assert _says_what_is_measured("jobs", 2)
