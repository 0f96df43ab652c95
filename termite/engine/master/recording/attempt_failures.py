"""Say why an attempt of a job has failed, for its record."""

import os

from termite.engine.errors import FsError, Reason, ResultRefused, Retryable
from termite.engine.history.logic.recorded_text import recorded_text
from termite.engine.launch.output import OutputDiffers
from termite.engine.master.job import Job
from termite.engine.wire.protocol.foreign_text import printable

DETAIL_CHARACTERS = 500
NAMED_PLACES = 3
PRINTED_OTHERWISE = "it printed something else than the run before"


def detail_text(detail: str) -> str:
    """Return a detail as records have it. It may be of a hostile worker, or have a secret."""
    return printable(recorded_text(detail), DETAIL_CHARACTERS)


def reason_of(error: Exception, job: Job) -> tuple[Reason, str]:
    """Return why an attempt has failed, and a detail for people."""
    match error:
        case Retryable():
            return error.reason, error.detail
        case ResultRefused():
            return error.reason, ", ".join(error.places[:NAMED_PLACES])
        case FsError():
            return Reason.NOT_PUBLISHED, os.strerror(error.errno)
        case OutputDiffers():
            return (job.failures[-1].reason if job.failures else Reason.INTERNAL_ERROR), PRINTED_OTHERWISE
    return Reason.INTERNAL_ERROR, repr(error)
