"""Note that an attempt of a job has failed: its worker died, or its result could not be used.

The job then runs again, on another worker if this one is to blame (`run_job.try_workers`). After
too many failures it falls back (fallback.py).
"""

import logging

from termite.engine.errors import Conflict, Outdated, Reason, Retryable
from termite.engine.master.job import Job
from termite.engine.master.shared import Master

log = logging.getLogger(__name__)


def record_conflict(master: Master, job: Job, error: Conflict) -> bool:
    """Note that others have changed the files from which the result derives.

    Return whether the job may run on a worker again, at the present state of the files. It may not
    after three failures, if it had the network, or if a local command may change the files now.
    """
    job.failures.append(error)
    job.has_met_others = True
    log.info("job-conflicted job=%d paths=%d detail=%r reason=%s", job.id, len(error.paths), error.detail, error.reason)
    rule = job.verdict.rule if job.verdict else None
    if error.is_held or not job.can_retry or (rule is not None and rule.network):
        return False
    for counters in master.counters_of(job):
        counters.retries[error.reason] += 1
    return True


def record_failure(master: Master, job: Job, error: Retryable) -> None:
    """Note a failed attempt against its worker, so that the next attempt gets another one.

    If a file changed under the job, or could not be looked at here, no worker is to blame. Nor is
    one that gives no job the network, or whose trace has disturbed the job. A command that failed
    before its input was there has failed by itself.
    """
    assert job.lease is not None, "only a lease can fail"
    if error.reason is Reason.NETWORK_DENIED:
        job.fail(job.lease.worker, error)  # another worker may give it; this one is sound
        return
    if isinstance(error, Outdated) or error.reason is Reason.LOOK_FAILED:
        job.failures.append(error)
        log.info("job-outdated job=%d detail=%r reason=%s", job.id, error.detail, error.reason)
        return
    for counters in master.counters_of(job):
        counters.retries[error.reason] += 1
    if error.reason is Reason.TRACE_DISTURBED:
        job.is_disturbed = True  # it is no failure, and cannot happen again
        log.info("job-disturbed job=%d lease=%s detail=%r reason=%s", *_named(job, error))
        return
    if error.reason is Reason.INPUT_CHANGED:  # nor is this one
        log.info("job-came-early job=%d lease=%s detail=%r reason=%s", *_named(job, error))
        return
    job.fail(job.lease.worker, error)
    master.pool.failed(job.lease, error)
    log.warning("job-retried job=%d lease=%s detail=%r reason=%s", *_named(job, error))


def _named(job: Job, error: Retryable) -> tuple[int, str, str, Reason]:
    return job.id, job.lease.worker if job.lease else "", error.detail, error.reason
