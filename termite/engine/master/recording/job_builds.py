"""Know which build a job belongs to.

A front end gives its build tool a variable, which all commands of the build inherit. A command may
clear its environment, so the ancestors of a process without the variable are searched for a front
end. A job that has none of both belongs to a build without a front end, which ends when no such
job came for some time.
"""

import os
import time
from collections.abc import Callable, Mapping

from termite.engine.history.logic.job_record import BuildRecord
from termite.engine.launch.local_runs import MAX_ANCESTORS
from termite.engine.master.recording.build_notes import BuildNotes

VARIABLE = "TERMITE_BUILD"
KNOWN_S = 1.0  # for which the ancestors of a process stay known; no pid is given again so soon
MAX_KNOWN = 1000
QUIET_S = 10.0  # then a build without a front end is over


class JobBuilds:
    """The builds that run now, and the numbers of all builds of a tree.

    `past` are earlier builds, the newest first. `parent_of` returns the parent of a process, or 0.
    """

    def __init__(self, last_build: int, past: list[BuildRecord], parent_of: Callable[[int], int]) -> None:
        self._last_build = last_build
        self._parent_of = parent_of
        self._jobs_of = {build.front_end: build.jobs for build in reversed(past) if _is_whole(build)}
        self._named: dict[str, BuildNotes] = {}  # by the value of VARIABLE
        self._unnamed: BuildNotes | None = None
        self._below: dict[int, tuple[BuildNotes | None, float]] = {}  # by the parents of launchers, until then
        self._environment: Mapping[str, str] | None = None  # of the last job; most jobs share one
        self._name = ""

    def start(self, front_end: str, text: str, cwd: str, pid: int) -> BuildNotes:
        """Return the notes of a new build."""
        self._last_build += 1
        expected = self._jobs_of.get(front_end, 0)
        build = BuildNotes(self._last_build, time.time(), front_end, text, cwd, pid, expected)
        self._named[name_of(build)] = build
        self._below.clear()
        return build

    def end(self, build: BuildNotes, exit_code: int, signal: int) -> None:
        """Note the end of a build. Jobs that are not home yet still belong to it."""
        build.ended_s, build.exit_code, build.signal = time.time(), exit_code, signal
        self._named.pop(name_of(build), None)
        self._below.clear()
        if self._unnamed is build:
            self._unnamed = None
        self._jobs_of[build.front_end] = build.begun

    def find(self, environment: Mapping[str, str], pid: int) -> tuple[BuildNotes, bool]:
        """Return the build of a job by its launcher's environment and process.

        The second value is True if the build begins with this job.
        """
        if environment is not self._environment:
            self._environment, self._name = environment, environment.get(VARIABLE, "")
        if self._named:
            found = self._named.get(self._name) or self._find_ancestor(pid)
            if found is not None:
                return found, False
        if self._unnamed is not None:
            return self._unnamed, False
        self._last_build += 1
        self._unnamed = BuildNotes(self._last_build, time.time(), expected_jobs=self._jobs_of.get("", 0))
        return self._unnamed, True

    def quiet_build(self, last_job_s: float, now_s: float) -> BuildNotes | None:
        """Return the build without a front end if it is over, or None."""
        build = self._unnamed
        if build is None or build.tally.jobs < build.begun or now_s - last_job_s < QUIET_S:
            return None
        return build

    @property
    def running(self) -> list[BuildNotes]:
        """The builds that run now, the oldest first."""
        unnamed = [self._unnamed] if self._unnamed else []
        return sorted([*self._named.values(), *unnamed], key=lambda build: build.id)

    def _find_ancestor(self, pid: int) -> BuildNotes | None:
        """Return the build whose front end has started a process, or None if none has.

        Commands of one tool have one parent, so most of them cost one read of /proc.
        """
        parent, now_s = self._parent_of(pid), time.monotonic()
        build, until_s = self._below.get(parent, (None, 0.0))
        if now_s >= until_s:
            build = self._search_from(parent)
            if len(self._below) >= MAX_KNOWN:
                self._below.clear()
            self._below[parent] = build, now_s + KNOWN_S
        return build

    def _search_from(self, pid: int) -> BuildNotes | None:
        front_ends = {build.pid: build for build in self._named.values()}
        for _ in range(MAX_ANCESTORS):
            if pid <= 1:
                return None
            if (found := front_ends.get(pid)) is not None:
                return found
            pid = self._parent_of(pid)
        return None


def _is_whole(build: BuildRecord) -> bool:
    return build.ended_s > 0 and not build.is_cut_off


def name_of(build: BuildNotes) -> str:
    """Return the value of VARIABLE for a build, which no other master gives to one of its own."""
    return f"{os.getpid()}-{build.started_s:.6f}"
