"""A misspelt name gets the name that was meant, and another word gets none."""

from termite.engine.nearest_name import nearest_name, wrong_name
from tests.unit.tables import each_row

NAMES = ("status", "start", "shutdown", "why", "log", "logs", "-log-level", "TERMITE_LOCAL", "Regexp", "SkipRefresh")


@each_row(
    ("word", "name"),
    [
        ("statsu", "status"),
        ("stat", "status"),
        ("sta", "start"),
        ("-log-l", "-log-level"),
        ("shutdwon", "shutdown"),
        ("shut-down", "shutdown"),
        ("whay", "why"),
        ("lgos", "logs"),
        ("log", "log"),
        ("-loglevel", "-log-level"),
        ("TERMITE_LOCL", "TERMITE_LOCAL"),
        ("regex", "Regexp"),
        ("skip_refresh", "SkipRefresh"),
        ("frobnicate", ""),
        ("x", ""),
        ("", ""),
        ("s" * 100_000, ""),
    ],
)
def test_the_nearest_name_is_found(word: str, name: str) -> None:
    assert nearest_name(word, NAMES) == name


def test_without_names_none_is_near() -> None:
    assert nearest_name("status", []) == ""


def test_the_error_says_what_to_write_or_where_to_look() -> None:
    assert (
        wrong_name("command", "statsu", NAMES, "termite-ctl help").message == "there is no command statsu: write status"
    )
    far = wrong_name("command", "frob", NAMES, "termite-ctl help")
    assert (far.message, far.hint) == ("there is no command frob", "see termite-ctl help")
    assert wrong_name("key", "frob", NAMES).message == "there is no key frob"
