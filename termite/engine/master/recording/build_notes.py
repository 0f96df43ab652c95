"""Hold what a master notes of one build."""

from dataclasses import dataclass, field

from termite.engine.history.logic.build_tally import BuildTally
from termite.engine.history.logic.job_record import NOT_KNOWN, BuildRecord, MasterMark
from termite.engine.status.report import Counters


@dataclass(slots=True, eq=False)
class BuildNotes:
    """A build: the fields are those of `BuildRecord`, and some for its way to the disk.

    `begun` counts its jobs. `tally` counts those that are home; only the keeper's thread changes
    it. `is_on_disk`: the build has a file, which grows until it `is_closed`.

    `counters` count what happened to its jobs up to now, for the summary.

    `is_shown`: readers of the live stream know the build. `shown_jobs` counts its jobs of which
    they were told that they are home. Only the master's loop changes these two.
    """

    id: int
    started_s: float
    front_end: str = ""
    text: str = ""
    cwd: str = ""
    pid: int = 0
    expected_jobs: int = 0
    ended_s: float = 0.0
    exit_code: int = NOT_KNOWN
    signal: int = 0
    last_job: int = 0
    begun: int = 0
    counters: Counters = field(default_factory=Counters)
    tally: BuildTally = field(default_factory=BuildTally)
    is_on_disk: bool = False
    is_closed: bool = False
    is_shown: bool = False
    shown_jobs: int = 0

    @property
    def recorded_id(self) -> int:
        """The id if the build has a file, else 0: another build may have the id on the disk."""
        return self.id if self.is_on_disk else 0

    @property
    def is_over(self) -> bool:
        """True if the build has ended and all of its jobs are home."""
        return self.ended_s > 0 and self.tally.jobs >= self.begun

    def record(self, tree: str, version: str, master: MasterMark | None = None) -> BuildRecord:
        """Return the record of the build as it is now. `master` is the mark of this process."""
        return BuildRecord(
            id=self.id,
            started_s=self.started_s,
            ended_s=self.ended_s,
            front_end=self.front_end,
            text=self.text,
            cwd=self.cwd,
            tree=tree,
            version=version,
            pid=self.pid,
            exit_code=self.exit_code,
            signal=self.signal,
            jobs=self.tally.jobs,
            expected_jobs=self.expected_jobs,
            last_job=self.last_job,
            counts=self.tally.counts(),
            master=master,
        )
