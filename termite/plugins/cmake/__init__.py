r"""The CMake plugin: commands that control the build run locally, commands that build run remotely.

These commands are local:

* configuring and regenerating, whose results control the running build;
* installing, which writes outside the writable root;
* testing and packing, and `cmake -P`;
* the helpers of CMake's makefiles that count progress in shared files;
* `cmake --build`, which is a build tool itself: its commands are distributed.

Every other `cmake -E` is remote. The most important one is `cmake_link_script`, which runs the
linker. Others, like `env`, `time` and `chdir`, run any command.

In a build directory that termite-cmake configured, commands begin with the launcher and notes
(`launch.cmake`). The first note is `--cmake=`, which marks them for this plugin. Rules see the
command without launcher and notes, so that a rule matches in all build directories alike.
"""

import re
from collections.abc import Mapping, Sequence

from termite import (
    Command,
    Invocation,
    KnownTool,
    Rule,
    ToolCall,
    Vouch,
    command_regexp,
    hookimpl,
    plain_command,
)

CMAKE = command_regexp("cmake3?") + r"\s++"
_SOURCE = "cmake plugin"
_WORDS = ("cmake",)
_OTHERS = ("ctest", "ctest3", "cpack", "cpack3", "ccmake", "cmake-gui")
# CMake writes the launcher as a word that may be quoted, then notes whose values may be quoted.
_WORD = r"(?:\"[^\"]*\"|[^\s\"])"
_MARK = "--cmake="
# These neither run other commands nor keep times of files.
_SMALL_TOOLS = (
    *("cmake_symlink_executable", "cmake_symlink_library", "copy", "copy_if_different", "create_symlink", "echo"),
    *("make_directory", "remove", "rename", "rm", "touch", "touch_nocreate", "true"),
)
_LAUNCH = re.compile(rf"{_WORD}+ {_MARK}\w+(?: --\w+={_WORD}*)* -- ")


@hookimpl
def termite_rules() -> list[Rule]:
    """Return the rules that keep the commands local that the module's docstring lists."""
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
    """Match rules with the command as the project wrote it, without the launcher and its notes."""
    if "cmake" in invocation.notes:
        return plain_command(invocation)
    if _MARK not in "\0".join(invocation.argv):
        return None
    command = plain_command(invocation)
    text = _LAUNCH.sub("", command.text)
    return Command(command.argv, command.exe, command.search, command.cwd, command.env, text)


@hookimpl
def termite_build(
    tool: str, args: Sequence[str], cwd: str, env: Mapping[str, str], preload: Mapping[str, str]
) -> Command | None:
    """Add the preload variables, which CMake passes on to the make or ninja that it starts."""
    if tool != "cmake":
        return None
    return Command((tool, *args), tool, True, cwd, {**env, **preload}, " ".join((tool, *args)))


@hookimpl
def termite_known_tools() -> list[KnownTool]:
    """Vouch for the small tools behind `cmake -E` that links of ninja call."""
    return [KnownTool("cmake", "cmake", ("cmake_link_script",), _judge_small_tool)]


def _judge_small_tool(call: ToolCall) -> Vouch | str:
    if call.args[:1] != ("-E",) or call.args[1:2] == ():
        return "cmake without -E"
    if call.args[1] not in _SMALL_TOOLS:
        return f"cmake -E {call.args[1]}"
    return Vouch()
