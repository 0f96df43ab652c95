"""Compare docs/use/reference.md and tables of docs/develop/protocol.md with the code, both ways.

Each test fails if the document names a thing that the code does not have, and if the code has a
thing that the document does not name.
"""

import argparse
import ast
import functools
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from termite.cli.build_commands.front_end_help import build_help, cmake_help, tool_help
from termite.cli.daemons import coordinator_parser, worker_parser
from termite.cli.master_command import master_parser
from termite.cli.moved_trees.own_words import FLAG
from termite.cli.subcommands.registry import FOLDERS, subcommand_parser
from termite.engine.decide.logic.rules import KEYS
from termite.engine.decide.logic.switches import VARIABLES
from termite.engine.errors import ExitCode, Reason
from termite.engine.model import TerminalWish, TraceMode, WindowSize
from termite.engine.wire.protocol.fields import parse_fields
from termite.fuse.job_terminal import JobTerminal
from termite.fuse.sandbox.sandbox_order import LARGE_ORDER, SandboxSpec, pack_order
from tests.docs.product_code import PRODUCT, calls, product_modules, product_nodes
from tests.docs.test_log_events import KEY, LEVELS

TOP = Path(__file__).parents[2]
REFERENCE = TOP / "docs" / "use" / "reference.md"
PROTOCOL = TOP / "docs" / "develop" / "protocol.md"

PARSERS: Mapping[str, Callable[[], argparse.ArgumentParser]] = {
    "termite-master": master_parser,
    "termite-coordinator": functools.partial(coordinator_parser, "termite-coordinator"),
    "termite-worker": functools.partial(worker_parser, "termite-worker"),
}
# Defaults that depend on the machine: the document describes them in words.
COMPUTED = {
    ("termite-worker", "jobs"): "twice the number of cores that it may use",
    ("termite-worker", "tmpdir"): "`$TMPDIR`, or else `/var/tmp`",
}
# Names that no user sets or meets as an environment variable.
NO_VARIABLES = {
    "TERMITE_VERSION": "macro that CMakeLists.txt sets",
    "TERMITE_LAUNCHES": "entry of CMake's cache",
    "TERMITE_PROGRAM": "entry of CMake's cache",
    "TERMITE_TESTS": "set by tools/test_as_root.sh for tests/conftest.py alone",
}
DAEMONS = {
    "cli/page_startup": "coordinator",
    "cli": "any",
    "engine/decide": "master",
    "engine/fleet/coordinator.py": "coordinator",
    "engine/fleet/farm_desk.py": "coordinator",
    "engine/fleet": "master",
    "engine/history": "master",
    "engine/host": "any",
    "engine/launch": "master",
    "engine/loop/task_tree.py": "any",
    "engine/loop": "master",
    "engine/master": "master",
    "engine/private_directories.py": "any",
    "engine/recall": "master",
    "engine/store": "mirror",
    "engine/tree": "master",
    "engine/wire": "any",
    "engine/worker": "worker",
    "fuse": "mirror",
}

# -- reading the documents --------------------------------------------------------------------------------------------


@functools.cache
def rows(heading: str, document: Path = REFERENCE) -> tuple[tuple[str, ...], ...]:
    """Return the cells of all tables of a section, without the head lines."""
    text = document.read_text()
    found = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#+ |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"{document} has no heading {heading!r}"
    table: list[tuple[str, ...]] = []
    is_body = False
    for line in found[1].split("\n"):
        if re.fullmatch(r"[|-]+", line):
            is_body = True
        elif not line.startswith("|"):
            is_body = False
        elif is_body:
            table.append(cells(line))
    assert table, f"{document} has no table below {heading!r}"
    return tuple(table)


def cells(line: str) -> tuple[str, ...]:
    return tuple(cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1])


def codes(cell: str) -> list[str]:
    """Return the pieces of code in a cell."""
    return re.findall(r"`([^`]*)`", cell)


def first_codes(heading: str) -> list[str]:
    """Return the pieces of code in the first cells of the tables below a heading."""
    return [code for row in rows(heading) for code in codes(row[0])]


def without_repetition(names: list[str]) -> set[str]:
    assert len(names) == len(set(names)), f"named twice: {sorted(names)}"
    return set(names)


# -- reading the code -------------------------------------------------------------------------------------------------


def c_text(*folders: str) -> str:
    paths = [path for folder in folders for path in sorted((TOP / folder).glob("*.[ch]"))]
    assert paths
    return "\n".join(path.read_text() for path in paths)


def strings_in(path: str, function: str) -> set[str]:
    """Return the text constants in a function of a module, without its docstring."""
    for node in ast.walk(ast.parse((TOP / path).read_text())):
        if isinstance(node, ast.FunctionDef) and node.name == function:
            skipped = 1 if ast.get_docstring(node) else 0
            inner = [part for statement in node.body[skipped:] for part in ast.walk(statement)]
            return {part.value for part in inner if isinstance(part, ast.Constant) and isinstance(part.value, str)}
    raise AssertionError(f"{path} has no function {function}")


# -- commands ---------------------------------------------------------------------------------------------------------


def flags_of(program: str) -> dict[str, str]:
    """Return the flags of a parser, as the document writes them, with their defaults."""
    found = {}
    for action in PARSERS[program]()._actions:  # argparse has no other list
        if action.help == argparse.SUPPRESS:
            continue
        name = action.option_strings[-1].removeprefix("--")
        values = "|".join(action.choices) if action.choices else str(action.metavar or name.upper())
        flag = f"-{name}" if action.nargs == 0 else f"-{name} {values}"
        found[flag] = COMPUTED.get((program, name)) or default_of(action)
    return found


def default_of(action: argparse.Action) -> str:
    """Return a default as code, or "" if the flag has none of its own."""
    if action.default in (None, "", argparse.SUPPRESS) or action.default is False or action.default == []:
        return ""
    return f"`{action.default:g}`" if isinstance(action.default, float) else f"`{action.default}`"


@pytest.mark.parametrize("program", PARSERS)
def test_every_flag_of_a_daemon_is_described_with_its_default(program: str) -> None:
    described = {
        codes(flag)[0]: default if "`" in default or default in COMPUTED.values() else ""
        for flag, default, _ in rows(program)
    }
    assert described == flags_of(program)


def usage_of(subcommand: str) -> str:
    """Return how to call a subcommand, as the document writes it: `status [-json]`."""
    words = [subcommand]
    for action in sorted(subcommand_parser(subcommand)._actions, key=lambda each: not each.option_strings):
        if action.help == argparse.SUPPRESS or action.dest in ("help", "version"):
            continue
        name = action.metavar or "|".join(action.choices or [action.dest.upper()])
        if action.option_strings:
            flag = action.option_strings[-1].replace("--", "-")
            words.append(f"[{flag}]" if action.nargs == 0 else f"[{flag} {name}]")
        else:
            words.append(
                {"?": f"[{name}]", "*": f"[{name}...]", argparse.REMAINDER: f"{name}..."}.get(
                    str(action.nargs), str(name)
                )
            )
    return " ".join(words)


def test_every_command_of_termite_ctl_is_described_with_its_flags() -> None:
    described = without_repetition(first_codes("termite-ctl"))
    assert described == {*map(usage_of, FOLDERS), "help [COMMAND]", "-help", "-version"}


def test_every_option_of_the_launcher_is_described() -> None:
    source = (TOP / "native" / "launcher" / "command_line.c").read_text()
    usage = re.findall(r'^    "  (--\S*)', source, re.MULTILINE)
    own = re.findall(r'option\(\*word, "(--\w+=)"\)', source)
    described = without_repetition(first_codes("termite and termite-shell"))
    assert {name.partition("=")[0] for name in described} == {name.partition("=")[0] for name in [*usage, *own]}
    assert {"--help", "--", "--WORD=...", "--exe=PROGRAM"} <= described


def test_every_option_of_a_front_end_is_described() -> None:
    build = {
        f"-{word.lstrip('-')}"
        for word in strings_in("termite/cli/build_commands/build.py", "run_build")
        if re.fullmatch("-+[a-z]+", word)
    }
    assert without_repetition(first_codes("termite-build")) == build - {"-at"} | {f"{FLAG} PATH"}
    tools = strings_in("termite/cli/build_commands/front_end.py", "run_tool") | strings_in(
        "termite/cli/build_commands/cmake.py", "run_cmake"
    )
    own = {word for word in tools if word.startswith("--")}
    assert (
        without_repetition(first_codes("termite-make, termite-ninja and termite-cmake"))
        == own | {f"{FLAG} PATH"}
        == {"--termite-help", "--version", "--at PATH"}
    )


def test_every_command_has_a_section() -> None:
    scripts = set(re.findall(r'^(termite-[\w-]+) = "termite\.cli:', (TOP / "pyproject.toml").read_text(), re.MULTILINE))
    headings = re.findall(r"^### (.*termite.*)$", REFERENCE.read_text(), re.MULTILINE)
    named = {name for heading in headings for name in re.findall(r"termite[\w-]*", heading)}
    front_ends = {f"termite-{name}" for name in ("make", "ninja", "cmake", "build")}  # native/front_end starts them
    assert named == scripts - {"termite-front-end"} | front_ends | {"termite", "termite-shell"}


# -- variables, rules, files, exit codes ------------------------------------------------------------------------------


def test_every_environment_variable_is_described() -> None:
    found: set[str] = set()
    for folder in ("termite", "native", "tools"):
        for path in (TOP / folder).rglob("*"):
            if path.suffix in (".py", ".c", ".h", ".sh", ".cmake"):
                found |= set(re.findall(r"\bTERMITE_[A-Z_]+\b(?<!_H)", path.read_text()))  # no include guards
    assert set(NO_VARIABLES) <= found, "an exception for a name that is gone"
    described = [*first_codes("Set by you"), *first_codes("Set by termite")]
    ours = without_repetition([name.partition("=")[0] for name in described if name.startswith("TERMITE_")])
    assert ours == found - set(NO_VARIABLES)


def test_every_variable_is_in_the_tables_by_which_a_misspelt_one_is_found() -> None:
    described = [*first_codes("Set by you"), *first_codes("Set by termite")]
    ours = {name.partition("=")[0] for name in described if name.startswith("TERMITE")}
    assert set(VARIABLES) == ours
    source = (TOP / "native" / "launcher" / "surroundings" / "settings.c").read_text()
    rows = re.findall(r'^(?:    |.* SWITCH = )\{"([A-Z_]+)", \{(.*?)\}', source, re.MULTILINE)
    of_the_launcher = {name if name == "TERMITE" else f"TERMITE_{name}": values for name, values in rows}
    assert {name: tuple(re.findall('"(.*?)"', values)) for name, values in of_the_launcher.items()} == VARIABLES


@pytest.mark.parametrize("shown", [tool_help("make"), cmake_help(), build_help()], ids=["make", "cmake", "build"])
def test_the_help_of_a_front_end_has_every_variable_that_front_ends_obey(shown: str) -> None:
    table = REFERENCE.read_text().partition("### Set by you")[2].partition("### Set by termite")[0]
    rows = re.findall(r"^\| `(TERMITE\w*)[^|]*\|([^|]*)\|", table, re.MULTILINE)
    obeyed = {name for name, readers in rows if "front ends" in readers}
    assert set(re.findall(r"^  (TERMITE\w*) ", shown, re.MULTILINE)) == obeyed


def test_every_key_of_a_rule_is_described() -> None:
    assert without_repetition(first_codes("Rules")) == set(KEYS)


def own_names() -> set[str]:
    """Return the names in the code of files, directories and sockets that are termite's own."""
    names = set()
    for _, node in product_nodes():
        if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes):
            text = node.value.decode(errors="replace") if isinstance(node.value, bytes) else node.value
            if re.fullmatch(r"\.termite-[a-z]*|\0?termite-(?:worker|master|doctor)-|/var/[\w/]+/termite(?:-|$)", text):
                names.add(text.lstrip("\0").rstrip("-"))
    source = "\n".join(path.read_text() for path, _ in product_modules())
    below_cache = re.findall(r'(?:own_directory\(CACHE\)|cache\)) / f?"([\w-]+)', source)
    below_state = re.findall(r'own_directory\(STATE\) / f"\{tree_name\(root\)\}(\.\w+)"', source)
    below_state += [f"/{name}" for name in re.findall(r'own_directory\(STATE\) / "([\w.]+)"', source)]
    below_state += [f"/records/TREE/{name}" for name in re.findall(r'records_directory\(root\) / "([\w-]+)"', source)]
    units = re.findall(r'^UNIT = "(termite-[\w-]+\.service)"', source, re.M)
    assert below_cache and below_state and units
    return (
        names
        | {f"~/.config/systemd/user/{unit}" for unit in units}
        | {f"~/.cache/termite/{name}".rstrip("-") for name in below_cache}
        | {f"~/.local/state/termite/{name.removeprefix('/')}" for name in below_state}
    )


def test_every_file_of_ours_is_described() -> None:
    yours = {"secret.txt", "signkey.pem"}
    described = [re.sub(r"TREE(?=\.)|/?-?(?:[A-Z-]+/?)+$", "", code).rstrip("/") for code in first_codes("Files")]
    per_user = {name for name in described if name.startswith("/var/cache/termite/user")}
    assert len(per_user) == 1
    assert without_repetition(described) - yours - per_user == own_names() - {"/var/cache/termite"}


def test_every_exit_code_is_described() -> None:
    constants = [str(int(code)) for code in ExitCode]
    constants += re.findall(r"\bEXIT_\w+ = (\d+)", c_text("native/launcher", "native/sandbox", "native/preload"))
    assert len(constants) >= 8
    described = without_repetition(first_codes("Exit codes"))
    assert {code for code in described if len(code) == 3 and code < "120"} == set(constants)
    assert described - set(constants) == {"1", "126", "127", "128 + N"}


# -- log events, reasons ----------------------------------------------------------------------------------------------


def daemon_of(path: Path) -> str:
    place = str(path.relative_to(PRODUCT))
    return next(name for prefix, name in DAEMONS.items() if place.startswith(prefix))


def log_events() -> set[tuple[str, str, str, str]]:
    """Return event, daemon, level and keys of each log call."""
    found = set()
    for path, node in calls():
        match node:
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id="log"), attr=level), args=[ast.Constant(value=str(text)), *_]
            ) if level in LEVELS:
                event, _, rest = text.partition(" ")
                keys = " ".join(key for key, _ in KEY.findall(rest))
                found.add((event, daemon_of(path), "error" if level == "exception" else level, keys))
    return found


def test_every_log_event_is_described_with_daemon_level_and_keys() -> None:
    described = [
        (codes(event)[0], daemon, level, " ".join(codes(keys))) for event, daemon, level, keys, _ in rows("Log events")
    ]
    assert len(described) == len(set(described))
    assert set(described) == log_events()
    assert described == sorted(described, key=lambda row: row[0]), "the table is in the order of the events"


def test_every_reason_is_described_with_its_words() -> None:
    described = [(codes(name)[0], words) for name, words, _ in rows("Reasons")]
    assert described == [(reason.value, reason.words) for reason in Reason]


# -- orders and reports of a sandbox ----------------------------------------------------------------------------------


def protocol_rows(first_column: str) -> Mapping[str, str]:
    """Return the keys of a table of the section Sandbox, each with its second cell."""
    section = PROTOCOL.read_text().partition("\n## Sandbox\n")[2].partition("\n## ")[0]
    table = section.partition(f"\n| {first_column} |")[2].partition("\n\n")[0]
    pairs = [(codes(row[0])[0].partition("=")[0], row[1]) for row in map(cells, table.split("\n")[2:])]
    assert pairs, f"no table {first_column!r} in the section Sandbox"
    assert len(pairs) == len(dict(pairs))
    return dict(pairs)


def test_every_key_of_an_order_is_described_and_has_two_sides() -> None:
    parser = (TOP / "native" / "sandbox" / "order.c").read_text()
    accepted = set(re.findall(r'strcmp\(key, "(\w+)"\)', parser)) | set(
        re.findall(r'^    \[\w+\] = \{(?:\.key = )?"(\w+)"', parser, re.MULTILINE)
    )
    accepted |= set(re.findall(r'FOLLOWS\[\] = "(\w+)=1"', parser))
    spec = SandboxSpec(
        job=7,
        mount=Path("/mount"),
        lower="base/1",
        uid=0,
        gid=0,
        argv=(b"true",),
        exe=b"true",
        search=True,
        env=(b"PATH=/bin",),
        cwd=b"/",
        umask=0o22,
        stdin_offset=0,
        stdin_closed=True,
        hostname="host",
        processes=7,
        terminal=JobTerminal(TerminalWish(WindowSize())),
        trace=TraceMode.EXACT,
    )  # every key that a mirror can send
    sent = {key for key, _ in parse_fields(pack_order(spec, Path("/s")) + LARGE_ORDER)}
    table = protocol_rows("key of an order")
    assert len(accepted) > 15
    assert set(table) == accepted
    assert {key for key, when in table.items() if when != "never"} == sent


def test_every_key_of_a_report_is_described() -> None:
    source = c_text("native/sandbox", "native/sandbox/trace")
    written = set(re.findall(r'(?:field_add(?:_number)?\(&?said, |end_with\()"(\w+)"', source))
    reader = "".join((PRODUCT / "fuse" / "sandbox" / name).read_text() for name in ("sandbox_report.py", "spawner.py"))
    read = set(re.findall(r'fields(?:\.get\(|\[)"(\w+)"', reader)) | set(re.findall(r'"(\w+)" in fields', reader))
    tables = {*protocol_rows("key of a report"), *protocol_rows("key of an answer")}
    assert len(written) > 10
    assert tables == written
    assert read <= written
