"""Keep away from a store that does not answer.

A breaker is closed while its store answers. After a failure it is open, so that nobody asks; after
a while the next one may try. The time is an argument.
"""

from termite.engine.errors import TermiteError

OFF_S = 30.0
UNAVAILABLE = "UNAVAILABLE"  # the code of gRPC for a server that is gone
# The codes of gRPC with which a server that refuses one result will refuse the next one as well.
REFUSALS = frozenset({"PERMISSION_DENIED", "UNAUTHENTICATED", "UNIMPLEMENTED"})


class StoreFailed(TermiteError):
    """A shared store did not answer, or not as the API says. `code` is that of gRPC."""

    def __init__(self, code: str, detail: str = "") -> None:
        super().__init__(f"{code}: {detail}" if detail else code)
        self.code = code


class CircuitBreaker:
    """The breaker of one store. `failures` counts all failures."""

    def __init__(self, off_s: float = OFF_S) -> None:
        self._off_s = off_s
        self._off_until_s = -float("inf")
        self.failures = 0

    def may_ask(self, now_s: float) -> bool:
        """Return whether the store may be asked now."""
        return now_s >= self._off_until_s

    def note_failure(self, now_s: float) -> bool:
        """Note that the store did not answer. Return whether that is the first failure."""
        is_first = not self.failures
        # Calls that were under way when the breaker opened do not keep it open for longer.
        if self.may_ask(now_s):
            self._off_until_s = now_s + self._off_s
        self.failures += 1
        return is_first
