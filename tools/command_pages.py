"""Write the man pages and the shell completions of all commands, from the parsers of `--help`.

    .venv/bin/python tools/command_pages.py build

The man pages go to build/man/man1, the completions to build/completions/bash, zsh and tcsh. Pages
of commands without a parser (the front ends, the launcher) have the text that they print as help.
"""

import argparse
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import shtab

from termite.cli.daemons import coordinator_parser, worker_parser
from termite.cli.flags import VERSION
from termite.cli.master_command import master_parser
from termite.cli.subcommands.registry import FOLDERS, PROGRAM, subcommand_parser, whole_parser

SHELLS = ("bash", "zsh", "tcsh")
HELP_WORDS = {
    "termite": "--help",
    "termite-build": "--help",
    "termite-cmake": "--termite-help",
    "termite-make": "--termite-help",
    "termite-ninja": "--termite-help",
    "termite-redo": "--help",
}
COMMANDS = Path(sys.executable).parent
_FILE_NAMES = ("FILE", "PATH")


def daemon_parsers() -> dict[str, argparse.ArgumentParser]:
    """Return the parser of each daemon by its name."""
    worker, coordinator = "termite-worker", "termite-coordinator"
    return {
        "termite-master": master_parser(),
        coordinator: coordinator_parser(coordinator),
        worker: worker_parser(worker),
    }


def parser_pages() -> dict[str, str]:
    """Return the man page of each command with a parser, by its name."""
    pages = {name: man_page(name, parser) for name, parser in daemon_parsers().items()}
    pages[PROGRAM] = man_page(PROGRAM, whole_parser())
    for name in FOLDERS:
        pages[f"{PROGRAM}-{name}"] = man_page(f"{PROGRAM}-{name}", subcommand_parser(name))
    return pages


def man_page(name: str, parser: argparse.ArgumentParser) -> str:
    """Return a man page in roff, with all that `--help` of the parser has."""
    description = " ".join((parser.description or "").split())
    usage = " ".join(parser.format_usage().removeprefix("usage: ").split())
    lines = [*_head(name, description.partition(". ")[0].rstrip(".")), ".SH SYNOPSIS", _escaped(usage)]
    lines += [".SH DESCRIPTION", _escaped(description)]
    for heading, is_flag in (("ARGUMENTS", False), ("OPTIONS", True)):
        actions = [
            action for action in parser._actions if action.help != argparse.SUPPRESS
        ]  # argparse has no other list
        chosen = [action for action in actions if bool(action.option_strings) is is_flag]
        lines += [f".SH {heading}"] if chosen else []
        for action in chosen:
            lines += _lines_of(parser, action)
    for part in (parser.epilog or "").split("\n\n"):
        if part.startswith("Example:\n"):
            lines += [".SH EXAMPLE", ".nf", *map(_escaped, part.split("\n")[1:]), ".fi"]
        elif part:
            lines += [".SH NOTES", _escaped(" ".join(part.split()))]
    return "\n".join([*lines, *_foot()]) + "\n"


def text_page(name: str, text: str) -> str:
    """Return a man page with the help that a command prints, as it is."""
    first = text.strip().split("\n", 1)[0].removeprefix("usage: ")
    body = [".SH DESCRIPTION", ".nf", *map(_escaped, text.rstrip().split("\n")), ".fi"]
    return "\n".join([*_head(name, first), *body, *_foot()]) + "\n"


def completion(parser: argparse.ArgumentParser, shell: str) -> str:
    """Return the script with which a shell completes the words of a command."""
    for each in [parser, *_subparsers(parser)]:
        for action in each._actions:
            if action.type is Path or action.metavar in _FILE_NAMES:
                vars(action)["complete"] = shtab.DIRECTORY if action.metavar == "DIR" else shtab.FILE
    script: str = shtab.complete(parser, shell=shell)
    return script


def main(top: Path) -> int:
    """Write all files below `top`, and return the exit code."""
    pages = parser_pages()
    for name, word in HELP_WORDS.items():
        said = subprocess.run([COMMANDS / name, word], stdout=subprocess.PIPE, text=True, check=True).stdout
        pages[name] = text_page(name, said)
    pages["termite-shell"] = ".so man1/termite.1\n"
    for name, page in pages.items():
        _write(top / "man" / "man1" / f"{name}.1", page)
    for shell in SHELLS:
        for name, parser in {**daemon_parsers(), PROGRAM: whole_parser()}.items():
            file = f"_{name}" if shell == "zsh" else name  # zsh finds the functions of commands by such names
            _write(top / "completions" / shell / file, completion(parser, shell))
    return 0


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _subparsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices.values()


def _head(name: str, summary: str) -> list[str]:
    return [f'.TH {name.upper()} 1 "" "termite {VERSION}"', ".SH NAME", f"{_escaped(name)} \\- {_escaped(summary)}"]


def _foot() -> list[str]:
    return [
        ".SH EXIT STATUS",
        "100: the command was called wrongly, or could not do its work. docs/use/reference.md lists all codes.",
        ".SH SEE ALSO",
        "termite\\-ctl(1), termite\\-master(1), termite\\-worker(1), termite\\-coordinator(1), termite(1)",
    ]


def _lines_of(parser: argparse.ArgumentParser, action: argparse.Action) -> list[str]:
    """Return the entry of a flag, of an argument, or of all subcommands."""
    if isinstance(action, argparse._SubParsersAction):
        entries = [(f"{PROGRAM} {name}", each.description or "") for name, each in action.choices.items()]
        return [
            line for head, text in entries for line in (".TP", f".B {_escaped(head)}", _escaped(" ".join(text.split())))
        ]
    formatter = parser._get_formatter()
    head = formatter._format_action_invocation(action)
    return [".TP", f".B {_escaped(head)}", _escaped(formatter._expand_help(action) if action.help else "")]


def _escaped(text: str) -> str:
    """Return a line for roff, which gives a meaning to backslashes, dashes and first dots."""
    shown = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{shown}" if shown.startswith((".", "'")) else shown


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1])))
