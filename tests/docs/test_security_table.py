"""Each row of the table of threats names a test that exists, and each attack stands in a row."""

import re
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
HEAD = ["asset", "attacker", "threat", "answer", "test"]
NO_ATTACK = {"test_denied_goes_on.py"}  # what builds do inside of the same filter


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def table() -> list[list[str]]:
    lines = (CHECKOUT / "docs" / "use" / "security.md").read_text().splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("|") and cells(line) == HEAD)
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append(cells(line))
    return rows


ROWS = table()


def named_by(row: list[str]) -> list[str]:
    return re.findall(r"`([^`]+)`", row[-1])


def test_each_row_is_full_and_names_tests_that_exist() -> None:
    targets = re.findall(r"^(\w+):", (CHECKOUT / "Makefile").read_text(), re.MULTILINE)
    for row in ROWS:
        assert len(row) == len(HEAD) and all(row), row
        assert any(name.startswith("tests/") for name in named_by(row)), f"a row needs a test: {row}"
        for name in named_by(row):
            if name.startswith("make "):
                assert name.removeprefix("make ") in targets
            else:
                assert re.search(r"^\s*(async )?def test_", (CHECKOUT / name).read_text(), re.MULTILINE), name


def test_every_attack_stands_in_a_row() -> None:
    named = {name for row in ROWS for name in named_by(row)}
    attacks = {path.name for path in (CHECKOUT / "tests" / "hostile").glob("test_*.py")}
    assert {name for name in attacks - NO_ATTACK if f"tests/hostile/{name}" not in named} == set()


def test_the_table_is_read() -> None:
    assert len(ROWS) > 40


# The worst that build scripts and masters could do, which a reader should find first.
FIRST = (
    "test_field_injection.py",
    "test_sandbox_order.py",
    "test_descriptor_outlives_job.py",
    "test_upper.py",
    "test_sandbox_order.py",
    "test_cas.py",
    "test_private_copies.py",
    "test_paths_from_the_wire.py",
    "test_session_keys.py",
    "test_own_program.py",
    *["test_denied_calls.py"] * 3,
    "test_launcher_elsewhere.py",
    "test_tied_to_this_machine.py",
)


# Rows whose protection is no line of code, by the begin of their threats.
WITHOUT_SWITCH = {
    "/proc tells what no program": "nothing of termite protects there: the kernel alone decides",
    "`termite-ctl shell` gives it to a shell": "nothing is written that an edit could leave open",
}


def switched_off() -> list[dict[str, str]]:
    head, *lines = (CHECKOUT / "tests" / "hostile" / "switched_off.tsv").read_text().splitlines()
    return [dict(zip(head.split("\t"), line.split("\t"), strict=True)) for line in lines]


def test_each_row_has_a_protection_that_was_switched_off() -> None:
    """The list says with which edit one of its tests fails."""
    tried = {name for entry in switched_off() for name in re.findall(r"tests/[\w/]+\.py", entry["test"])}
    missing = [row[2] for row in ROWS if not tried & set(named_by(row))]
    assert {begin for begin in WITHOUT_SWITCH if any(threat.startswith(begin) for threat in missing)} == {
        *WITHOUT_SWITCH
    }
    assert [threat for threat in missing if not threat.startswith(tuple(WITHOUT_SWITCH))] == []


def test_the_table_begins_with_the_worst_threats() -> None:
    assert tuple(Path(named_by(row)[0]).name for row in ROWS[: len(FIRST)]) == FIRST


def test_each_protection_that_was_switched_off_names_tests_that_exist() -> None:
    """The list is that of one round: which edit, and how the test failed."""
    entries = switched_off()
    assert [*entries[0]] == ["threat", "place", "edit", "test", "result"] and len(entries) > 300
    for row in entries:
        assert all(row.values()), row
        for name in re.findall(r"tests/[\w/]+\.py", row["test"]):
            assert (CHECKOUT / name).is_file(), row
