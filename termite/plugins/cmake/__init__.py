r"""CMake: what steers the build runs locally, what builds runs remotely.

Local: configuring and regenerating (its results steer this very build), installing (it writes outside the writable
root), testing and packing, `cmake -P`, and the helpers of CMake's makefiles that count progress in shared files.
`cmake --build` is one more build tool. Remote: every other `cmake -E`; above all `cmake_link_script`, which is the
linker, and `env`, `time`, `chdir`, which run anything.

In a build directory that termite-cmake configured, commands begin with the launcher and notes (`launch.cmake`), the
first of which is `--cmake=`: that is this plugin's mark. Rules see the command without them, so that they match the
same in every build directory.
"""

import re
from collections.abc import Mapping, Sequence

from termite import Command, Invocation, Rule, command_regexp, hookimpl, plain_command

CMAKE = command_regexp("cmake3?") + r"\s++"
_SOURCE = "cmake plugin"
_WORDS = ("cmake",)
_OTHERS = ("ctest", "ctest3", "cpack", "cpack3", "ccmake", "cmake-gui")
# As CMake writes it into a command: a word that may be quoted, then notes, whose values may be.
_WORD = r"(?:\"[^\"]*\"|[^\s\"])"
_MARK = "--cmake="
_LAUNCH = re.compile(rf"{_WORD}+ {_MARK}\w+(?: --\w+={_WORD}*)* -- ")


@hookimpl
def termite_rules() -> list[Rule]:
    """See the head of the module."""
    return [
        Rule(
            CMAKE + r"--(?:build|workflow)\s", local=True, recurse=True, skip_refresh=True, source=_SOURCE, words=_WORDS
        ),
        Rule(CMAKE + r"-E\s+cmake_(?:progress_\w+|echo_color|depends)\b", local=True, source=_SOURCE, words=_WORDS),
        Rule(CMAKE + r"(?!-E\s)", local=True, source=_SOURCE, words=_WORDS),
        Rule(command_regexp("|".join(_OTHERS)), local=True, source=_SOURCE, words=_OTHERS),
    ]


@hookimpl
def termite_parse(invocation: Invocation) -> Command | None:
    """Match rules with a command as the project wrote it: without the launcher and its notes."""
    if "cmake" in invocation.notes:
        return plain_command(invocation)
    if not any(_MARK in word for word in invocation.argv):
        return None
    command = plain_command(invocation)
    text = _LAUNCH.sub("", command.text)
    return Command(command.argv, command.exe, command.search, command.cwd, command.env, text)


@hookimpl
def termite_build(
    tool: str, args: Sequence[str], cwd: str, env: Mapping[str, str], preload: Mapping[str, str]
) -> Command | None:
    """CMake passes its environment on to the make or ninja that it starts."""
    if tool != "cmake":
        return None
    return Command((tool, *args), tool, True, cwd, {**env, **preload}, " ".join((tool, *args)))
