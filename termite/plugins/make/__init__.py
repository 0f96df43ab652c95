"""The make plugin: recursive makes run locally, and their own commands are distributed again.

The autotools run locally too. A makefile that regenerates itself calls several of them at the same
time. They take turns by a lock on a file in autom4te.cache, and one job does not see the lock of
another one.
"""

from collections.abc import Mapping, Sequence

from termite import Command, How, Invocation, Rule, command_regexp, hookimpl, plain_command

TOOLS = ("make", "gmake")

RECURSIVE = command_regexp(r"(?:g|b|p|re)?make(?:-\d[\d.]*)?")

_AUTOTOOLS = r"a(?:clocal|uto(?:conf|header|m4te|make|reconf))(?:-\d[\d.]*)?"
_AUTOTOOLS_WORDS = ("aclocal", "autoconf", "autoheader", "autom4te", "automake", "autoreconf")
_SOURCE = "make plugin"


@hookimpl
def termite_rules() -> list[Rule]:
    """Keep sub-makes and the autotools local; a sub-make schedules jobs and holds no slot."""
    return [
        Rule(RECURSIVE, local=True, recurse=True, skip_refresh=True, source=_SOURCE, words=("make",)),
        Rule(command_regexp(_AUTOTOOLS), local=True, source=_SOURCE, words=_AUTOTOOLS_WORDS),
        # automake calls these tools through its script `missing`, which gives advice if a tool is
        # not installed.
        Rule(rf"/missing['\"]?\s{{1,8}}{_AUTOTOOLS}(?=\s|$)", local=True, source=_SOURCE, words=_AUTOTOOLS_WORDS),
    ]


@hookimpl
def termite_parse(invocation: Invocation) -> Command | None:
    """Match rules with a recipe without the continued line breaks that make leaves in it.

    Also leave out the `exec` that a make with MAKE_SHELL puts before a command for which it would
    not have started a shell.
    """
    if invocation.tool not in TOOLS and invocation.how is not How.SHELL:
        return None
    command = plain_command(invocation)
    text = command.text.removeprefix("exec ") if invocation.how is How.SHELL else command.text
    if "\\\n" in text:
        text = _without_continuations(text)
    if text == command.text:
        return None
    return Command(command.argv, command.exe, command.search, command.cwd, command.env, text)


@hookimpl
def termite_build(
    tool: str, args: Sequence[str], cwd: str, env: Mapping[str, str], preload: Mapping[str, str]
) -> Command | None:
    """Run the stock make under its own name, so that its messages and $(MAKE) are unchanged."""
    if tool not in TOOLS:
        return None
    return Command((tool, *args), tool, True, cwd, {**env, **preload}, " ".join((tool, *args)))


def _without_continuations(text: str) -> str:
    # A backslash that is itself escaped does not continue a line.
    joined = []
    for line in text.split("\n"):
        backslashes = len(line) - len(line.rstrip("\\"))
        joined.append(line[:-1] if backslashes % 2 else line + "\n")
    return "".join(joined).removesuffix("\n")
