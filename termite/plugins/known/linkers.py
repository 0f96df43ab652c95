"""Known linkers for ELF files.

A linker with the plugin for link-time optimization executes `lto-wrapper`, which is not known.
"""

import re
from collections.abc import Sequence

from termite import NOT_CALLED, KnownTool, ToolCall, Vouch, refuse_all

# The triples of compilers for ELF files. Files for Windows have a time in their heads.
ELF_PREFIX = r"(?:[a-z0-9_]+-(?:[a-z0-9_.]+-)?(?:linux|elf|none|eabi)[a-z0-9_]*(?:-[a-z]+[a-z0-9]*)?-)?"
# What picks another format, and so a time in the head of the file.
_FORMAT_VARIABLES = ("LDEMULATION", "GNUTARGET")
_REFUSED = (
    (r"@.*", "a file of options"),
    (r"--?build-id[=,]uuid", "a random build id"),
    (r"--?(?:stats|time-trace.*|verbose|version|help|print-map|incremental.*|reproduce.*|save-temps.*)|-[vV]", ""),
    (r"--?plugin.*|--?lto.*|--?thinlto.*|-mllvm.*", "link-time optimization"),
    (r"--?(?:no-)?threads?(?:[=-].*)?", "threads of a linker"),
    (r"--?insert-timestamp|--?(?:no)?warn-backrefs.*", ""),
    (r"(?:-m)?(?:i386|arm|arm64|aarch64|arm_\w+_|thumb2|mcore|sh|ppc)pep?\w*", "another format than ELF"),
    (r"--?oformat.*|--?format(?:=.*)?|-[bA].*", "another format than ELF"),
)
# They write names of object files, which are random if a compiler has just made them.
_NAMES_OBJECTS = re.compile(r"-M|-Map.*|--?(?:Map|cref|trace|dependency-file|print-gc-sections).*|-t|-y.*|--why-.*")


def refused_link_word(words: Sequence[str]) -> str:
    """Return the reason for which the words of a linker are refused, or ""."""
    for word in words:
        for pattern, reason in _REFUSED:
            if re.fullmatch(pattern, word):
                return reason or f"the option {word} of a linker"
    return ""


def names_objects(words: Sequence[str]) -> bool:
    """Return whether the linker is to write the names of object files somewhere."""
    return any(_NAMES_OBJECTS.fullmatch(word) for word in words)


def _judge(call: ToolCall) -> Vouch | str:
    if set_ones := [name for name in _FORMAT_VARIABLES if call.env.get(name)]:
        return f"{set_ones[0]} is set"
    return refused_link_word(call.args) or Vouch()


LINKERS = (
    KnownTool("ld", rf"{ELF_PREFIX}ld(?:\.bfd)?", ("GNU ld",), _judge),
    KnownTool("gold", rf"{ELF_PREFIX}(?:ld\.gold|gold)", ("GNU gold",), _judge),
    KnownTool(
        "lld",
        r"ld\.lld(?:-\d+)?",
        ("lld is a generic driver",),
        _judge,
        programs="lld(?:-[0-9]+)?",
        asks=("/proc/cpuinfo",),
    ),
    KnownTool("collect2", NOT_CALLED, ("COLLECT_GCC_OPTIONS",), refuse_all, programs="collect2"),
)
