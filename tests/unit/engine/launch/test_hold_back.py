"""Output is held for a time that depends on who reads it."""

import itertools
import math

from termite.engine.launch.invocation import JobRequest, OutputKind
from termite.engine.launch.output import HOLD_S, hold_s
from termite.engine.model import How, Invocation
from tests.unit.tables import each_row

T, F, N, C, O = (OutputKind(kind) for kind in ("tty", "file", "null", "collected", "other"))  # noqa: E741

# Whether stdin is a terminal, the kinds of stdout and stderr, and the seconds.
ROWS = [
    (False, T, T, 0.0),  # a person's shell
    (False, T, F, 0.0),  # `cc 2>log`
    (False, F, T, 0.0),  # `cc >log`
    (False, C, T, 0.0),  # ninja, with stderr elsewhere
    (False, T, N, 0.0),
    (True, C, C, 0.0),  # only stdin is a terminal: who types there waits for a question
    (True, F, F, 0.0),
    (True, N, N, 0.0),
    (True, O, O, 0.0),
    (False, F, F, math.inf),  # `make >log 2>&1`, and make -O
    (False, N, N, math.inf),
    (False, C, C, math.inf),  # ninja outside of its console pool
    (False, F, C, math.inf),
    (False, N, F, math.inf),
    (False, O, O, HOLD_S),  # `make | tee log`
    (False, O, F, HOLD_S),  # `$(shell)` with stderr in a file
    (False, C, O, HOLD_S),
    (False, N, O, HOLD_S),
]


def request(is_stdin_terminal: bool, out: OutputKind, err: OutputKind) -> JobRequest:
    invocation = Invocation(("cc",), "cc", True, "/", {}, How.DIRECT)
    return JobRequest(invocation, 0o22, True, False, out=out, err=err, is_stdin_terminal=is_stdin_terminal)


@each_row(("is_stdin_terminal", "out", "err", "seconds"), ROWS)
def test_how_long_output_is_held(is_stdin_terminal: bool, out: OutputKind, err: OutputKind, seconds: float) -> None:
    assert hold_s(request(is_stdin_terminal, out, err)) == seconds


@each_row(("out", "err"), itertools.product(OutputKind, OutputKind))
def test_nobody_at_a_terminal_waits_and_every_reader_waits_for_a_second_at_most(
    out: OutputKind, err: OutputKind
) -> None:
    assert hold_s(request(True, out, err)) == 0.0
    held_s = hold_s(request(False, out, err))
    assert (held_s == 0.0) is (OutputKind.TERMINAL in (out, err))
    assert held_s in (0.0, HOLD_S) or OutputKind.OTHER not in (out, err)
