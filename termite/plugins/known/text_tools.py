"""Known tools that read texts and write texts.

Everything that they write is made of their words and of the files that they read. `sed` is known
with simple scripts only, because its scripts may run programs.
"""

import re
from collections.abc import Callable

from termite import KnownTool, ToolCall, Vouch
from termite.plugins.known.tool_options import read_options

_COREUTILS = ("GNU coreutils",)
# An address, then one command without file or program. A part between slashes has none inside.
_ADDRESS = r"(?:\d+|\$|/(?:[^/\\\n]|\\.)+/I?)"
_SUBSTITUTION = "|".join(
    rf"s{mark}(?:[^{mark}\\]|\\.)*{mark}(?:[^{mark}\\]|\\.)*{mark}[gpiI0-9]*"
    for mark in ("/", r"\|", ",", "%", ":", "@", "_")
)
_SED_COMMAND = rf"[ \t]*+(?:{_ADDRESS}(?:,{_ADDRESS})?[ \t]*+)?!?[ \t]*+(?:[dpqnNhHgGxDP=]|{_SUBSTITUTION})[ \t]*+"
# The name of a file that is read goes on to the end of the line.
_SED_READ = rf"[ \t]*+(?:{_ADDRESS}(?:,{_ADDRESS})?[ \t]*+)?!?[ \t]*+r[ \t]*+(?!/dev/|/proc/)[^\s][^\n]*"
_SED_LINE = rf"(?:{_SED_COMMAND};)*(?:{_SED_COMMAND}|{_SED_READ})"
_SED_SCRIPT = re.compile(rf"{_SED_LINE}(?:\n{_SED_LINE})*", re.DOTALL)
# The options of tools that only copy parts of files to standard output: without and with a text.
# Missing are `sort -R`, `tail -f`, and `grep -r`, which writes in the order of a directory.
_GREP = ("AEFGHILPbchilnoqsvwxz", "eABCm")
_FILTERS = {
    "cat": ("AbeEnstTuv", ""),
    "sort": ("bdfginruscV", "kto"),
    "head": ("qz0123456789", "nc"),
    "tail": ("qz0123456789", "nc"),
    "cut": ("sz", "bcdf"),
    "tr": ("cCdst", ""),
    "uniq": ("cdiuz", "fsw"),
    "wc": ("clmwL", ""),
    "grep": _GREP,
    "egrep": _GREP,
    "fgrep": _GREP,
}
# Each primary of `test` without times, owners and terminals.
_TEST_WORD = re.compile(r"-[abcdefghknoprsuwxzLS]|-(?:eq|ne|lt|le|gt|ge)|[^-].*|-?\d+|", re.DOTALL)


def _judge_sed(call: ToolCall) -> Vouch | str:
    scripts, others, words = list[str](), list[str](), iter(call.args)
    for word in words:
        if word in ("-e", "--expression"):
            scripts.append(next(words, ""))
        elif word.startswith("--expression="):
            scripts.append(word.partition("=")[2])
        elif re.fullmatch(
            r"-[nErsz]+|-i[.\w~]*|--quiet|--silent|--in-place(?:=[.\w~]*)?|--regexp-extended|--posix", word
        ):
            others.append(word)
        elif word.startswith("-"):
            return f"the option {word} of sed"
        elif not scripts:
            scripts.append(word)
    if not scripts or not all(_SED_SCRIPT.fullmatch(script) for script in scripts):
        return "a script of sed that may run programs or write files"
    is_in_place = any(word.startswith(("-i", "--in-place")) for word in others)
    return Vouch(makes_text=is_in_place, may_fail=not is_in_place)


def _judge_test(call: ToolCall) -> Vouch | str:
    args = call.args
    if call.name == "[":
        if args[-1:] != ("]",):
            return "[ without ]"
        args = args[:-1]
    # `-t`, `-O`, `-G`, `-N`, `-nt` and `-ot` ask for more than the files of the tree.
    refused = [word for word in args if not _TEST_WORD.fullmatch(word)]
    return f"test {refused[0]}" if refused else Vouch(may_fail=True)


def _judge_printf(call: ToolCall) -> Vouch | str:
    return "a time of printf" if any("%(" in word for word in call.args) else Vouch(may_fail=True)


def _judge_filter(call: ToolCall) -> Vouch | str:
    options = read_options(call.args, *_FILTERS[call.name])
    return options if isinstance(options, str) else Vouch(may_fail=True)


def _judge_words(call: ToolCall) -> Vouch:
    return Vouch(may_fail=True)


def _tool(name: str, called: str, judge: Callable[[ToolCall], Vouch | str], *marks: str) -> KnownTool:
    return KnownTool(name, called, marks or _COREUTILS, judge)


TEXT_TOOLS = (
    _tool("sed", "sed", _judge_sed, "GNU sed"),
    _tool("test", r"test|\[", _judge_test),
    _tool("echo", "echo|true|false|expr|basename|dirname|seq", _judge_words),
    _tool("printf", "printf", _judge_printf),
    _tool("cat", "cat|sort|head|tail|cut|tr|uniq|wc", _judge_filter),
    KnownTool("grep", "grep|egrep|fgrep", ("GNU grep",), _judge_filter, asks=("/proc/self/maps",)),
    KnownTool("cmp", "cmp", ("diffutils",), _judge_words, asks=("/proc/self/maps",)),
)
