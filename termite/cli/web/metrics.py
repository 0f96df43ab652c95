"""Figures of a tree's builds and of its master for Prometheus."""

from collections.abc import Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import CollectorRegistry

from termite.engine.history.logic.job_record import BuildRecord
from termite.engine.history.logic.live_state import LiveState


class _Figures:
    """A collector whose figures are those of one moment."""

    def __init__(self, builds: Sequence[BuildRecord], live: LiveState | None, now_s: float) -> None:
        self._builds, self._live, self._now_s = builds, live, now_s

    def collect(self) -> Iterator[Metric]:
        """Yield the figures."""
        yield GaugeMetricFamily("termite_master_up", "1 if a master runs in the tree", value=float(bool(self._live)))
        if self._live:
            yield from _live_figures(self._live, self._now_s)
        # A build that runs is on the disk without its counts, which would be seen as zeros.
        if ended := next((build for build in self._builds if build.ended_s), None):
            yield from _build_figures(ended)


def _live_figures(live: LiveState, now_s: float) -> Iterator[Metric]:
    running = len(live.running(now_s))
    yield GaugeMetricFamily("termite_jobs_running", "jobs that were sent and are not home", value=running)
    yield GaugeMetricFamily("termite_jobs_waiting", "jobs that wait", value=len(live.waiting))
    yield GaugeMetricFamily("termite_builds_running", "builds that run", value=len(live.builds))
    done = sum(build.jobs for build in live.builds_now)
    yield GaugeMetricFamily("termite_builds_running_jobs", "their jobs that are home", value=done)
    home = CounterMetricFamily("termite_jobs_home", "jobs that came home since these pages are served")
    home.add_metric([], live.all_home)
    yield home
    slots = GaugeMetricFamily("termite_worker_slots", "leased slots", labels=["worker"])
    busy = GaugeMetricFamily("termite_worker_slots_busy", "slots with a job", labels=["worker"])
    silent = GaugeMetricFamily("termite_worker_silent", "1 if the worker does not answer", labels=["worker"])
    for worker in live.workers.values():
        slots.add_metric([worker.name], worker.slots)
        busy.add_metric([worker.name], worker.running)
        silent.add_metric([worker.name], float(bool(worker.silent_since_s)))
    yield from (slots, busy, silent)


def _build_figures(build: BuildRecord) -> Iterator[Metric]:
    """Yield the figures of the newest build that has ended."""
    yield GaugeMetricFamily("termite_last_build_number", "number of the newest build that has ended", value=build.id)
    took_s = max(build.ended_s - build.started_s, 0.0)
    yield GaugeMetricFamily("termite_last_build_seconds", "its time", value=took_s)
    jobs = GaugeMetricFamily("termite_last_build_jobs", "its jobs, by where they ran", labels=["where"])
    counts = build.counts
    for where, count in (
        ("worker", counts.remote),
        ("local", counts.local),
        ("short", counts.short),
        ("answered", counts.answered),
        ("cache", counts.cached),
    ):
        jobs.add_metric([where], count)
    yield jobs
    yield GaugeMetricFamily("termite_last_build_retried", "its failed attempts", value=counts.retried)


def metrics_text(builds: Sequence[BuildRecord], live: LiveState | None, now_s: float) -> bytes:
    """Return the figures in the text format of Prometheus. `builds` has the newest one first."""
    registry = CollectorRegistry()
    registry.register(_Figures(builds, live, now_s))
    return generate_latest(registry)
