"""Decide which jobs are traced on their worker, and read the traces."""

from termite.engine.fleet.logic.learnt_names import LearntNames
from termite.engine.master.job import Job
from termite.engine.model import PackedTrace, TraceGap, TraceMode
from termite.engine.recall.logic.traced_paths import AccessKind, JobTrace, PathAccess


def trace_mode(job: Job, wanted: TraceMode) -> TraceMode:
    """Return how a job is traced if the master traces jobs as `wanted`.

    A trace may disturb a job, which then runs once more without one. Therefore a job is not traced
    if it cannot run again. Nor is one that has the network, because nobody knows what it reads
    there, or a shell at which somebody types.
    """
    if not wanted or job.is_disturbed or (job.terminal is not None and job.terminal.is_typed_at):
        return TraceMode.OFF
    rule, request = job.verdict.rule if job.verdict else None, job.request
    has_stream = request.has_stdin and request.stdin_file is None
    return TraceMode.OFF if has_stream or (rule is not None and rule.network) else wanted


def job_trace(trace: PackedTrace, names: LearntNames) -> JobTrace:
    """Return the accesses of a trace that `Lease.run` has returned; `names` are those of its lease.

    No call was lost, because such a run does not count.
    """
    kinds = {pair: (AccessKind(pair[0]), AccessKind(pair[1])) for pair in trace.pairs}
    accesses = tuple(PathAccess(path, *kinds[pair]) for path, pair in names.accesses(trace))
    return JobTrace(accesses, TraceGap(trace.gaps).words if trace.gaps else (), calls=trace.calls)
