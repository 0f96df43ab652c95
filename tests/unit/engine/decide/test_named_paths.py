"""Test whether the text of a command names a path."""

from termite.engine.decide.logic.outside_places import names_path
from tests.unit.tables import each_row


@each_row(
    ("text", "is_named"),
    [
        ("gcc -c /x/proj/a.c", True),
        ("gcc -I/x/proj -c a.c", True),
        ("gcc -isystem/x/proj/include -c a.c", True),
        ("make -C '/x/proj'", True),
        ("make M=/x/proj", True),
        ("cd /x/proj&& make", True),
        ("cc -Wl,-rpath,/x/proj:/y", True),
        ("cc @/x/proj/flags", True),
        ("cp /x/proj-deps/a b", False),
        ("cp /x/proj2 /x/proj.old/a /x/proj_a /x/proj~ b", False),
        ("cp /y/x/proj/a b", False),
        ("cp y/x/proj/a b", False),
        ("cp -t/y/x/proj/a b", False),
        ("cp /x/proj-deps/a /x/proj", True),
        ("", False),
    ],
)
def test_a_path_is_named_only_up_to_the_end_of_a_name(text: str, is_named: bool) -> None:
    assert names_path(text, "/x/proj") is is_named
