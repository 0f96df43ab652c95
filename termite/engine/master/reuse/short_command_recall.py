"""Decide whether a short command is looked up, or goes to a worker to be traced.

Otherwise it runs here at once. No result of a command that ran here can be stored, because nobody
has traced it.
"""

from termite.engine.master.job import Job
from termite.engine.master.remote_runs.machine_questions import wanted_by
from termite.engine.master.reuse.recalled_jobs import is_slot_idle
from termite.engine.master.reuse.result_cache import AUDIT, ResultCache
from termite.engine.master.shared import Master
from termite.engine.recall.look_up.fingerprints import recall_name
from termite.engine.status.report import Counters

LEAST_S = 0.002  # a shorter command has ended here before a hit is published
TRACED_SHARE = 0.05  # of the commands of a build that run on workers although they are short


def may_be_recalled(master: Master, job: Job) -> bool:
    """Return whether a result of this short command is stored, so that it is worth a look-up.

    This costs a few microseconds, and gives the job its identity.
    """
    cache, key, command = master.cache, job.key, job.command
    if cache is None or key is None or command is None or not _is_worth_it(master, job):
        return False
    wanted = wanted_by(master, job, command)
    cache.identify(job, command, wanted.machine if wanted.questions else None)
    return job.identity is not None and cache.store.has_results(job.weak)


def is_to_be_traced(master: Master, job: Job) -> bool:
    """Return whether this short command goes to a worker although a core is idle here.

    A few commands of a build do, so that the next build may find their results. None does while
    no slot is idle, or while other jobs wait for one.
    """
    cache = master.cache
    if cache is None or job.identity is None or not job.is_stored or not _is_worth_it(master, job):
        return False
    if job.is_traced_though_short or job.notes.miss == AUDIT:
        return True
    counters = master.counters_of(job)[-1]
    if counters.traced >= TRACED_SHARE * _count_of_build(cache, counters) or not is_slot_idle(master):
        return False
    if not _is_storable(cache, job):
        return False
    job.is_traced_though_short = True
    for each in master.counters_of(job):
        each.traced += 1
    return True


def _is_worth_it(master: Master, job: Job) -> bool:
    took_s = master.short.time_of(job.key) if job.key is not None else None
    return took_s is not None and LEAST_S <= took_s < master.short.limit_s


def _count_of_build(cache: ResultCache, counters: Counters) -> int:
    """Return how many commands a build has: as many as it had so far, or as the one before."""
    if counters is not cache.counted_build:
        cache.count_before = _count(cache.counted_build)
        cache.counted_build = counters
    return max(_count(counters), cache.count_before)


def _count(counters: Counters) -> int:
    return counters.remote + counters.short + counters.cached


def _is_storable(cache: ResultCache, job: Job) -> bool:
    """Return whether nothing is known that forbids to store a result of this very command."""
    assert job.identity is not None, "the caller has asked"
    found = cache.store.last(recall_name(job.identity))
    return found is None or found[0].weak != job.weak or not found[0].obstacle
