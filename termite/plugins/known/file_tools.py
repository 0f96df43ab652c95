"""Known tools that make, copy, move and remove files.

Copies keep the times of their sources only if an option says so. The order of a directory is
random, so recursive calls must not say what they do.
"""

import re
from collections.abc import Callable

from termite import KnownTool, ToolCall, Vouch
from termite.plugins.known.tool_options import ToolOptions, read_options

_COREUTILS = ("GNU coreutils",)
_TIMES = ("-p", "-a", "-u", "--preserve", "--archive", "--update", "--preserve-timestamps")
_RECURSIVE = ("-r", "-R", "-a", "--recursive", "--archive")
_TELLING = ("-v", "-c", "--verbose", "--changes")


def _judge_cp(call: ToolCall) -> Vouch | str:
    long = "force parents preserve no-preserve recursive archive update verbose no-clobber no-target-directory"
    long += " symbolic-link link dereference no-dereference reflink sparse remove-destination"
    options = read_options(call.args, "fprRaLPHdnuvTls", "t", long, "target-directory")
    return _judged(options, _TIMES)


def _judge_install(call: ToolCall) -> Vouch | str:
    # -s executes strip, and -o and -g need users.
    long = "directory compare preserve-timestamps verbose no-target-directory"
    options = read_options(call.args, "cdDCpTv", "mt", long, "mode target-directory")
    return _judged(options, _TIMES)


def _judge_mv(call: ToolCall) -> Vouch | str:
    long = "force no-clobber update verbose no-target-directory"
    return _judged(read_options(call.args, "fnuvT", "t", long, "target-directory"), ("-u", "--update"))


def _judge_ln(call: ToolCall) -> Vouch | str:
    long = "force symbolic no-dereference no-target-directory relative verbose physical logical"
    return _judged(read_options(call.args, "sfnTrvPL", "t", long, "target-directory"))


def _judge_mkdir(call: ToolCall) -> Vouch | str:
    long = "parents verbose ignore-fail-on-non-empty"
    return _judged(read_options(call.args, "pv", "m", long, "mode"))


def _judge_rm(call: ToolCall) -> Vouch | str:
    return _judged(read_options(call.args, "frRdv", "", "force recursive dir verbose"), may_fail=True)


def _judge_chmod(call: ToolCall) -> Vouch | str:
    if call.args and re.fullmatch(r"[-+=][rwxXst]+", call.args[0]):  # `chmod -x FILE` is no option
        return _judge_chmod(ToolCall(call.name, ("a" + call.args[0], *call.args[1:]), call.env))
    return _judged(read_options(call.args, "Rfvc", "", "recursive verbose changes silent quiet"))


def _judge_touch(call: ToolCall) -> Vouch | str:
    # Without -d, -t and -r the time is that of the run, which a result gets anew.
    return _judged(read_options(call.args, "cf", "", "no-create"))


def _judged(options: ToolOptions | str, timed: tuple[str, ...] = (), *, may_fail: bool = False) -> Vouch | str:
    if isinstance(options, str):
        return options
    if not options.operands:
        return "no file is named"
    if options.has_any(*_RECURSIVE) and options.has_any(*_TELLING):
        return "messages in the order of a directory"
    return Vouch(is_blind=not options.has_any(*timed), may_fail=may_fail)


def _tool(called: str, judge: Callable[[ToolCall], Vouch | str]) -> KnownTool:
    return KnownTool(called.partition("|")[0], called, _COREUTILS, judge)


FILE_TOOLS = (
    _tool("cp", _judge_cp),
    _tool("install", _judge_install),
    _tool("mv", _judge_mv),
    _tool("ln", _judge_ln),
    _tool("mkdir|rmdir", _judge_mkdir),
    _tool("rm", _judge_rm),
    _tool("chmod", _judge_chmod),
    _tool("touch", _judge_touch),
)
