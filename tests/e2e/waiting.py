"""Waiting for a condition, never for a time."""

import time
from collections.abc import Callable

LIMIT_S = 30.0
STEP_S = 0.02  # between two looks: what is waited for belongs to other processes, which tell nobody


def wait_until(
    is_so: Callable[[], bool], what: str, explain: Callable[[], str] = str, limit_s: float = LIMIT_S
) -> None:
    """Return as soon as `is_so`; fail with `what` was waited for, and what `explain` knows, after `limit_s`."""
    deadline = time.monotonic() + limit_s
    while not is_so():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {limit_s:g} s: {what}\n{explain()}")
        time.sleep(STEP_S)
