"""Known binutils: ar, ranlib, strip, objcopy, and the programs that only show files.

Archives have times, users and modes of their members unless ar is told or built to leave them out.
The help text of a program shows how it was built.
"""

import glob
import re

from termite import KnownTool, ToolCall, Vouch
from termite.plugins.known.linkers import ELF_PREFIX

_WITHOUT_TIMES = "uids/gids (default)"  # in the help of an ar that leaves them out by itself
_STRIPS_WITHOUT_TIMES = "archives (default)"
_KEY = re.compile(r"-?([a-zA-Z]+)")
_ACTIONS = frozenset("rqdstp")
_MODIFIERS = frozenset("cvusSDTPabi")
_REFUSED_COPY = re.compile(
    r"@.*|--?(?:disable-deterministic-archives|enable-non-deterministic.*|verbose|version|help|plugin.*|info)|-U|-[vV]"
    r"|.*(?:pei?-|efi-|pe-).*"
)


def _judge_ar(call: ToolCall) -> Vouch | str:
    if not call.args or not (key := _KEY.fullmatch(call.args[0])):
        return "the options of ar"
    letters = set(key[1])
    if len(letters & _ACTIONS - {"s"}) > 1 or not letters <= _ACTIONS | _MODIFIERS or not letters & _ACTIONS:
        return f"the options {call.args[0]} of ar"
    if any(word.startswith(("-", "@")) for word in call.args[1:]):
        return "a file of options, or more options of ar"
    if "t" in letters and "v" in letters:
        return "times in the list of an archive"
    # With `u`, times are compared with those of the members of an old archive. With a, b or i, the
    # name of a member stands before that of the archive.
    archive = call.args[2 if letters & set("abi") else 1 :][:1]
    timed = tuple(glob.escape(word.rpartition("/")[2]) for word in archive) if "u" in letters else ()
    return Vouch(timed_inputs=timed, program_texts=() if "D" in letters else (_WITHOUT_TIMES,))


def _judge_ranlib(call: ToolCall) -> Vouch | str:
    options = [word for word in call.args if word.startswith(("-", "@"))]
    if options not in ([], ["-D"]):
        return "the options of ranlib"
    return Vouch(program_texts=() if options else (_WITHOUT_TIMES,))


def _judge_copy(call: ToolCall) -> Vouch | str:
    if call.env.get("GNUTARGET"):
        return "GNUTARGET is set"
    if refused := [word for word in call.args if _REFUSED_COPY.fullmatch(word)]:
        return f"the option {refused[0]}"
    is_told = any(word in ("-D", "--enable-deterministic-archives") for word in call.args)
    keeps_times = any(re.fullmatch(r"-p|--preserve-dates", word) for word in call.args)
    return Vouch(is_blind=not keeps_times, program_texts=() if is_told else (_STRIPS_WITHOUT_TIMES,))


def _judge_show(call: ToolCall) -> Vouch | str:
    # The list that objdump makes of an archive's members has their times.
    shows_times = call.name.endswith("objdump")
    pattern = r"@.*|--plugin.*|--(?:archive|all|debuginfod).*|-[A-Za-z]*a.*" if shows_times else r"@.*|--plugin.*"
    refused = [word for word in call.args if re.fullmatch(pattern, word)]
    return f"the option {refused[0]}" if refused else Vouch(may_fail=True)


_BINUTILS = ("GNU Binutils", "sourceware.org/bugzilla")
ARCHIVERS = (
    KnownTool("ar", f"{ELF_PREFIX}ar", ("uids/gids",), _judge_ar),
    KnownTool("ranlib", f"{ELF_PREFIX}ranlib", ("uids/gids",), _judge_ranlib),
    KnownTool("strip", f"{ELF_PREFIX}strip", _BINUTILS, _judge_copy),
    KnownTool("objcopy", f"{ELF_PREFIX}objcopy", _BINUTILS, _judge_copy),
    KnownTool("nm", f"{ELF_PREFIX}(?:nm|size|readelf|objdump|strings)", _BINUTILS, _judge_show),
)
