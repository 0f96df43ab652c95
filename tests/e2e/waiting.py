"""Wait for a condition, never for a time."""

import time
from collections.abc import Callable

LIMIT_S = 30.0
STEP_S = 0.02  # between two checks; other processes send no event when they change something


def wait_until(
    is_so: Callable[[], bool], what: str, explain: Callable[[], str] = str, limit_s: float = LIMIT_S
) -> None:
    """Return as soon as `is_so()` is true.

    After `limit_s`, fail with the name of the condition (`what`) and the text of `explain()`.
    """
    deadline = time.monotonic() + limit_s
    while not is_so():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {limit_s:g} s: {what}\n{explain()}")
        time.sleep(STEP_S)
