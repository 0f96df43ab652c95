"""Notify the user when a worker is silent, when it answers again, and when it is given up.

The notice stands on the stderr of a command that waits for that worker, which is the build's.
"""

from contextlib import suppress

import trio

from termite.engine.decide.logic.command_mask import mask_command
from termite.engine.fleet.silences import Silence, SilenceChange
from termite.engine.launch.connection import LauncherGone
from termite.engine.master.job import Job
from termite.engine.master.shared import Master
from termite.engine.master.user_notices.notices import NoticeKind
from termite.engine.model import Phase
from termite.engine.status.report import Report
from termite.engine.wire.protocol.foreign_text import printable

NAMED_COMMANDS = 3  # in a notice
SHOWN_CHARACTERS = 60  # of each command
_AT_A_WORKER = (Phase.RUNNING, Phase.FETCHING)


def silence_report(master: Master) -> list[Report]:
    """Return what `status` says about silent workers: name, seconds, and the jobs that wait."""
    now_s = trio.current_time()
    return [
        {
            "name": worker,
            "silent_s": round(now_s - since_s, 1),
            "jobs": [{"job": job.id, "command": _shown(master, job)} for job in waiting_jobs(master, worker)],
        }
        for worker, since_s in sorted(master.pool.silences.since_s().items())
    ]


def waiting_jobs(master: Master, worker: str) -> list[Job]:
    """Return the jobs that wait for this worker, the oldest first."""
    return [
        job for job in master.jobs.values() if job.phase in _AT_A_WORKER and job.lease and job.lease.worker == worker
    ]


class SilenceNotices:
    """The notices about silent workers. A worker is named once in a build."""

    def __init__(self, master: Master) -> None:
        self._master = master
        self._told: dict[str, Job] = {}  # the jobs on whose stderr a worker was called silent

    async def run(self) -> None:
        """Notify users of each change, until cancelled."""
        silences, number = self._master.pool.silences, 0
        while True:
            changes = await silences.wait_beyond(number)
            number = silences.number
            for change in changes:
                await self._notify(change)

    async def _notify(self, change: SilenceChange) -> None:
        """Notify the user of a change, unless nobody waits, or nobody was told of the silence.

        Only a job that is not finished has a launcher to write to.
        """
        waiting = waiting_jobs(self._master, change.worker)
        if change.step is Silence.BEGAN:
            if not waiting or not self._master.notices.select_new(NoticeKind.SILENT, [change.worker.encode()]):
                return
            job = self._told[change.worker] = waiting[0]
        else:
            told = self._told.pop(change.worker, None)
            jobs = self._master.jobs
            if told is None or not jobs:
                return
            job = told if jobs.get(told.id) is told else next(iter(waiting or jobs.values()))
        # If the launcher does not read, the notice goes out with its next frame.
        with suppress(LauncherGone), trio.move_on_after(0):
            await job.launcher.notice(f"termite: {self._text(change, waiting)}")

    def _text(self, change: SilenceChange, waiting: list[Job]) -> str:
        """Return the line about a change. It begins with the number of commands that wait."""
        count, worker, lasted = len(waiting), change.worker, f"{change.lasted_s:.0f} s"
        commands = "1 command" if count == 1 else f"{count} commands"
        if change.step is Silence.ENDED:
            return f"{commands} of worker {worker} can go on: it answers again, after {lasted}"
        if change.step is Silence.LOST:
            return f"{commands} of worker {worker} can start again: it was silent for {lasted} and is given up"
        named = "; ".join(_shown(self._master, job) for job in waiting[:NAMED_COMMANDS])
        more = f" and {len(waiting) - NAMED_COMMANDS} more" if len(waiting) > NAMED_COMMANDS else ""
        wait = "waits" if count == 1 else "wait"
        return f"{commands} {wait} for worker {worker}, which has been silent for {lasted}: {named}{more}"


def _shown(master: Master, job: Job) -> str:
    command = job.command
    assert command is not None, "it was parsed"
    return printable(mask_command(command.text, command.env, master.config.env_exclude, command.argv), SHOWN_CHARACTERS)
