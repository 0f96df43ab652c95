"""The places outside the tree as the summary of a build names them, and the rules for them."""

from termite.engine.decide.loaded_plugins import Plugins
from termite.engine.decide.logic.rules import first_match, parse_rules
from termite.engine.decide.outside_writes import OutsideWrites
from termite.engine.model import Command

ROOT = "/home/u/p"
BIN = "/usr/local/lib/x/bin"


def build(*commands: tuple[str, str]) -> tuple[OutsideWrites, dict[str, int]]:
    """Return the writes of a build, and how many commands wrote to each place.

    Each command has its text and the file that it wrote.
    """
    writes, counts = OutsideWrites(ROOT, Plugins()), dict[str, int]()
    for text, path in commands:
        command = Command(argv=(text,), exe=text, search=True, cwd=ROOT, env={}, text=text)
        place = writes.add(command, [path])
        writes.count(command, place)
        counts[place] = counts.get(place, 0) + 1
    return writes, counts


def test_files_in_one_directory_of_the_system_are_one_line_with_a_rule() -> None:
    installs = [(f"install -m 755 tool{n} {BIN}/tool{n}", f"{BIN}/tool{n}") for n in range(20)]
    writes, counts = build(*installs, ("cp a.1 /usr/local/man/a.1", "/usr/local/man/a.1"))
    assert writes.summarized(counts) == {BIN: 20, "/usr/local/man/a.1": 1}
    rules = parse_rules(f"[{writes.rule_for(BIN)}]")
    assert [text for text, _ in installs if not first_match(text, rules).local] == []
    others = ("cp a.1 /usr/local/man/a.1", f"{BIN}/tool1 a", f"{BIN}/cc -c a.c")
    assert [text for text in others if first_match(text, rules).local] == []


def test_a_rule_for_few_files_of_the_system_names_the_files_only() -> None:
    writes, counts = build(*((f"cp {name} /usr/bin/{name}", f"/usr/bin/{name}") for name in "ab"))
    assert writes.summarized(counts) == {"/usr/bin": 2}
    rules = parse_rules(f"[{writes.rule_for('/usr/bin')}]")
    assert [first_match(f"cp a /usr/bin/{name}", rules).local for name in "abc"] == [True, True, False]
    assert not first_match("/usr/bin/cc -c a.c", rules).local


def test_other_places_are_named_as_they_are() -> None:
    writes, counts = build(("cp a /srv/x/a", "/srv/x/a"), ("cp b /srv/x/b", "/srv/x/b"), ("cp c /etc", "/etc/c"))
    assert writes.summarized(counts) == {"/srv/x": 2, "/etc/c": 1}
    assert "/srv/x" in writes.rule_for("/srv/x")
    assert writes.rule_for("/srv/y") == ""
