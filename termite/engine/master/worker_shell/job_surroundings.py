"""Remember the directories and environments of the last jobs, for shells in their surroundings.

All of it is in memory and ends with the master. The jobs of a build share a few environments, each
of which is kept once.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from termite.engine.launch.invocation import Inheritance
from termite.engine.model import Rule

KEPT_JOBS = 500
KEPT_BYTES = 16 * 1024 * 1024  # of their environments; a usual one has 4 KiB, the kernel allows 6 MiB
ENTRY_BYTES = 100  # of a variable, beside its texts

Variables = Mapping[str, str]


@dataclass(slots=True)
class Surroundings:
    """The surroundings of a job: all that it had beside its command and its files.

    `env` is its whole environment on the master's machine. `rule` is the one that decided about it,
    None if there was none. `worker` is the last one that ran it, or "".
    """

    cwd: str
    env: Variables
    umask: int
    inherited: Inheritance
    rule: Rule | None = None
    worker: str = ""


@dataclass(slots=True)
class _Shared:
    """An environment, the number of remembered jobs that have it, and its size."""

    env: Variables
    uses: int
    size: int


class JobSurroundings:
    """The surroundings of the last jobs by their numbers, the oldest first."""

    def __init__(self, kept_jobs: int = KEPT_JOBS, kept_bytes: int = KEPT_BYTES) -> None:
        self._kept_jobs = kept_jobs
        self._kept_bytes = kept_bytes
        self._jobs: dict[int, tuple[Surroundings, _Shared]] = {}
        self._shared: dict[int, _Shared] = {}  # by the identity of the environment, and by its contents
        self._by_content: dict[int, _Shared] = {}
        self._bytes = 0

    def add(self, job: int, surroundings: Surroundings) -> None:
        """Remember a job, and forget the oldest ones that are too many."""
        shared = self._shared.get(id(surroundings.env)) or self._share(surroundings.env)
        shared.uses += 1
        surroundings.env = shared.env
        self._jobs[job] = surroundings, shared
        while len(self._jobs) > self._kept_jobs or (self._bytes > self._kept_bytes and len(self._jobs) > 1):
            self._forget_oldest()

    def find(self, job: int) -> Surroundings | None:
        """Return the surroundings of a job, or None if it is not remembered."""
        found = self._jobs.get(job)
        return found[0] if found else None

    def note_worker(self, job: int, worker: str) -> None:
        """Note that a job is sent to this worker."""
        if found := self._jobs.get(job):
            found[0].worker = worker

    @property
    def numbers(self) -> tuple[int, int] | None:
        """The numbers of the oldest and of the newest job that is remembered, or None."""
        return (next(iter(self._jobs)), next(reversed(self._jobs))) if self._jobs else None

    def statistics(self) -> dict[str, int]:
        """Return how many jobs and environments are remembered, and the bytes of the latter."""
        return {"jobs": len(self._jobs), "environments": len(self._shared), "bytes": self._bytes}

    def _share(self, env: Variables) -> _Shared:
        """Return the environment of the same contents that is kept, or keep this one."""
        content = hash(tuple(env.items()))
        found = self._by_content.get(content)
        if found is not None and found.env == env:
            return found
        size = sum(len(name) + len(text) + ENTRY_BYTES for name, text in env.items())
        shared = self._shared[id(env)] = _Shared(env, 0, size)
        self._by_content[content] = shared
        self._bytes += size
        return shared

    def _forget_oldest(self) -> None:
        _, shared = self._jobs.pop(next(iter(self._jobs)))
        shared.uses -= 1
        if shared.uses:
            return
        del self._shared[id(shared.env)]
        self._bytes -= shared.size
        content = hash(tuple(shared.env.items()))
        if self._by_content.get(content) is shared:
            del self._by_content[content]
