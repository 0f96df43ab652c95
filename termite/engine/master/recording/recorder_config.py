"""Hold the settings of a recorder."""

import os
from dataclasses import dataclass
from pathlib import Path

from termite.engine.history.logic.live_events import MasterState
from termite.engine.master.recording.job_records import RecordSettings


@dataclass(frozen=True, slots=True)
class RecorderConfig:
    """The settings of a recorder.

    `tree` is the directory of the tree, and `directory` that of the records, as in the keeper.
    """

    directory: Path | None
    tree: str
    settings: RecordSettings
    version: str = ""
    local_slots: int = 0

    def master_state(self, started_s: float) -> MasterState:
        """Return what readers see of this process, which is a master since `started_s`."""
        return MasterState(
            pid=os.getpid(),
            tree=self.tree,
            version=self.version,
            started_s=started_s,
            local_slots=self.local_slots,
        )
