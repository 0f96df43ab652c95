"""Know the tools that overwrite their output, whatever was there before.

They look at the old output first, such as a linker that removes only ordinary files. For all other
tools, the state of the old output is a dependency.
"""

import re
from collections.abc import Collection, Sequence

_COMPILERS = re.compile(
    rb"(?:[a-z0-9_]+-){0,4}(?:gcc|g\+\+|cc|c\+\+|cc1|cc1plus|cpp|as|collect2|lto1|lto-wrapper|ld|ld\.bfd|ld\.gold|clang|clang\+\+)"
    rb"(?:-[0-9.]+)?\Z"
)
_LOADERS = re.compile(rb"ld(?:-linux|-musl|64|-2)?[a-z0-9_.-]*\.so[.0-9]*\Z")
# These compare their output with the source only if an option says so. Others are not known here.
_PLAIN_OPTIONS = {b"cp": {b"-f", b"-p"}, b"install": {b"-m", b"-c", b"-p"}}


def always_overwrite(tools: Collection[bytes], argv: Sequence[bytes]) -> bool:
    """Return whether a job with these words only executes tools that overwrite their outputs.

    `tools` are the paths of all that it executed. A shell around the command counts as a tool.
    """
    names = {tool.rpartition(b"/")[2] for tool in tools}
    others = {name for name in names if not _COMPILERS.match(name)}
    if not others:
        return bool(names)
    command = argv[0].rpartition(b"/")[2] if argv else b""
    return others == names == {command} and _is_plain(command, argv[1:])


def is_loader(path: bytes) -> bool:
    """Return whether a path names the loader of ELF programs, which does nothing of its own."""
    return _LOADERS.match(path.rpartition(b"/")[2]) is not None


def _is_plain(command: bytes, words: Sequence[bytes]) -> bool:
    known = _PLAIN_OPTIONS.get(command, set())
    return bool(known) and all(not word.startswith(b"-") or word in known for word in words)
