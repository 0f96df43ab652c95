"""Traces become the accesses from which dependencies are made."""

import re
from pathlib import Path

from termite.engine.fleet.logic.learnt_names import LearntNames
from termite.engine.master.remote_runs.traced_jobs import job_trace
from termite.engine.model import TraceGap
from termite.engine.recall.logic.traced_paths import AccessKind, JobTrace, PathAccess
from termite.fuse.view.trace_names import TraceNames
from tests.unit.fuse.view.test_trace_names import noted

TABLE = Path(__file__).parents[4] / "native/sandbox/trace/path_calls.h"
# The kinds in the order of their bits, by the names of the tracer.
NAMES = {
    "READS": "READ", "WRITES": "WRITE", "CREATES": "CREATE", "EXCLUSIVE": "EXCL", "TRUNCATES": "TRUNC",
    "STATS": "STAT", "CHECKS": "ACCESS", "READS_LINK": "READLINK", "EXECUTES": "EXEC", "LISTS_NAMES": "LIST",
    "ENTERS": "CHDIR", "UNLINKS": "UNLINK", "MAKES": "MAKE", "CHANGES_META": "META", "OPENS_PATH": "OPATH",
    "NO_FOLLOW": "NOFOLLOW", "MOVES": "MOVED", "FOLLOW": "FOLLOW",
}  # fmt: skip


def bits_of(enum: str) -> dict[str, int]:
    """Return the names of an enum of the tracer with their values."""
    text = TABLE.read_text().partition(f"enum {enum} {{")[2].partition("};")[0]
    pairs = re.findall(r"(\w+) = 1(?: << (\d+))?,", text)
    return {name: 1 << int(bit or 0) for name, bit in pairs}


def test_kinds_and_gaps_have_the_bits_of_the_tracer() -> None:
    assert {NAMES[name]: bit for name, bit in bits_of("access_kind").items()} == {
        str(kind.name): kind.value for kind in AccessKind
    }
    noted_by_sandbox = {f"GAP_{gap.name}": gap.value for gap in TraceGap if gap <= TraceGap.PATHS}
    assert bits_of("gap") == noted_by_sandbox


def test_a_trace_becomes_accesses_in_the_order_of_their_first_use() -> None:
    names, learnt = TraceNames(), LearntNames()
    read, stat = AccessKind.READ | AccessKind.FOLLOW, AccessKind.STAT | AccessKind.NOFOLLOW
    uses = [(b"/b", stat, stat | read), (b"/a", read, read), (b"/dev/null", read, read)]
    trace = names.pack(noted(uses), 9, int(TraceGap.CHROOT))
    learnt.learn(trace)
    expected = (PathAccess(b"/b", stat, stat | read), PathAccess(b"/a", read, read))
    assert job_trace(trace, learnt) == JobTrace(expected, ("chroot",), 0, 9)
