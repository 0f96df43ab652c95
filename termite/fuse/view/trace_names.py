"""Number the names in the traces of a lease, and pack the traces for the master.

Only little-endian machines can trace jobs.
"""

import re
import zlib
from array import array

from termite.engine.model import MAX_TRACED_BYTES, MAX_TRACED_NAMES, PackedTrace, TraceGap

# The worker's own, which no journal knows. The rest of a job's root is the master's.
_OWN = (b"/proc", b"/dev", b"/sys")
# Files of the worker that tell a job nothing that may get into its result: they are left out. All
# programs with glibc, coreutils, bash or clang ask for some of them.
_TELL_NOTHING = re.compile(
    rb"/proc(?:/(?:self|thread-self|\d+)(?:/(?:exe|cwd|root|setgroups|[ug]id_map|fd(?:/\d+)?))?)?|/proc/filesystems|/sys/fs/selinux(?:/.*)?"
    rb"|/proc/sys/vm/overcommit_memory|/sys/kernel/mm/transparent_hugepage/.*|/sys"
    rb"|/dev(?:/(?:null|zero|full|tty|stdin|stdout|stderr|fd(?:/\d+)?))?",
    re.DOTALL,
)
_LIST = 1 << 9  # the kind of use that reads the names in a directory
COUNT_BYTES, KINDS_BYTES = 4, 8
FAST = 1  # of zlib: names are compressed to an eighth


class TraceNames:
    """The names of all traces of one lease, each with its number."""

    def __init__(self) -> None:
        self._numbers: dict[bytes, int] = {}
        self._names: list[bytes] = []
        self._text_bytes = 0
        self._known = 0  # so many names the master has certainly learnt

    def note_known(self, count: int) -> None:
        """Note that the master has learnt the first `count` names."""
        self._known = max(self._known, min(count, len(self._names)))

    def statistics(self) -> dict[str, int]:
        """Return the number of names."""
        return {"traced_names": len(self._names)}

    def pack(self, noted: bytes, calls: int, gaps: int) -> PackedTrace:
        """Return the trace that termite-sandbox has written as `noted`.

        The format is that of native/sandbox/trace/path_set.c. Names that belong to the worker and
        tell nothing are left out. Raise ValueError if the trace is malformed.
        """
        if not noted:  # the sandbox could not write it
            return PackedTrace(calls, gaps | TraceGap.PATHS)
        count = int.from_bytes(noted[:COUNT_BYTES], "little")
        start = COUNT_BYTES + KINDS_BYTES * count
        both, paths = array("I", noted[COUNT_BYTES:start]), noted[start:].split(b"\0")
        if len(both) != 2 * count or len(paths) != count + 1:
            raise ValueError("a trace that is cut")
        numbers, kinds, pairs = [], [], dict[tuple[int, int], int]()
        for path, pair in zip(paths, zip(both[::2], both[1::2], strict=True), strict=False):
            if path.startswith(_OWN) and _TELL_NOTHING.fullmatch(path) and not (pair[1] & _LIST and path in _OWN):
                continue
            number = self._numbers.get(path, -1)
            if number < 0:
                if len(self._names) == MAX_TRACED_NAMES or self._text_bytes + len(path) >= MAX_TRACED_BYTES:
                    return PackedTrace(calls, gaps | TraceGap.NAMES)
                number = self._number(path)
            numbers.append(number)
            kinds.append(pairs.setdefault(pair, len(pairs)))
        last = max(numbers, default=-1) + 1
        new = self._names[self._known : last]
        is_short = last <= 1 << 16
        return PackedTrace(
            calls=calls,
            gaps=gaps,
            is_short=is_short,
            numbers=array("H" if is_short else "I", numbers).tobytes(),
            pairs=tuple(pairs),
            kinds=array("B" if len(pairs) <= 1 << 8 else "H", kinds).tobytes(),
            first_name=self._known if new else 0,
            names=zlib.compress(b"\0".join(new) + b"\0", FAST) if new else b"",
        )

    def _number(self, path: bytes) -> int:
        number = self._numbers[path] = len(self._names)
        self._names.append(path)
        self._text_bytes += len(path) + 1
        return number
