"""Figures of a farm for programs: Prometheus, and JSON."""

from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import CollectorRegistry

from termite.cli.web.farm.farm_pages import users_of_farm
from termite.engine.wire.protocol.fleet_messages import FarmWorker, WholeFarm
from termite.engine.wire.protocol.foreign_text import printable


class _FarmFigures:
    """A collector whose figures are those of one moment."""

    def __init__(self, farm: WholeFarm | None, trouble: str) -> None:
        self._farm, self._trouble = farm, trouble

    def collect(self) -> Iterator[Metric]:
        """Yield the figures."""
        is_up = bool(self._farm and not self._trouble)
        yield GaugeMetricFamily("termite_coordinator_up", "1 if the coordinator answers", value=float(is_up))
        if self._farm:
            yield from _worker_figures(self._farm)
            yield from _user_figures(self._farm)


def _worker_figures(farm: WholeFarm) -> Iterator[Metric]:
    families = {
        name: GaugeMetricFamily(f"termite_worker_{name}", text, labels=["worker"])
        for name, text in (
            ("lost", "1 if the coordinator has removed it from the list"),
            ("stopped", "1 if it has said goodbye"),
            ("silent_seconds", "time since its last heartbeat"),
            ("drained", "1 if it takes no new jobs"),
            ("slots", "its slots"),
            ("slots_leased", "slots that masters hold"),
            ("load", "load average of its machine"),
            ("free_memory_bytes", "available memory of its machine"),
        )
    }
    for one in farm.workers:
        worker = one.worker
        figures = (one.is_lost, one.is_stopped, one.silent_s, worker.draining, worker.slots, worker.leased, worker.load)
        label = [printable(worker.name)]
        for family, figure in zip(families.values(), (*figures, worker.free_memory_bytes), strict=True):
            family.add_metric(label, float(figure))
    yield from families.values()


def _user_figures(farm: WholeFarm) -> Iterator[Metric]:
    slots = GaugeMetricFamily("termite_user_slots", "slots that masters of a user hold", labels=["user"])
    running = GaugeMetricFamily("termite_user_jobs_running", "jobs of a user that run", labels=["user"])
    for user, (held, jobs, _) in users_of_farm(farm).items():
        slots.add_metric([printable(user)], held)
        running.add_metric([printable(user)], jobs)
    yield from (slots, running)


def farm_metrics_text(farm: WholeFarm | None, trouble: str) -> bytes:
    """Return the figures in the text format of Prometheus."""
    registry = CollectorRegistry()
    registry.register(_FarmFigures(farm, trouble))
    return generate_latest(registry)


def farm_object(address: str, farm: WholeFarm | None, trouble: str) -> dict[str, object]:
    """Return everything that is known of a farm, for JSON."""
    return {
        "coordinator": address,
        "release": farm.release if farm else "",
        "trouble": trouble,
        "workers": [_worker_object(one) for one in farm.workers] if farm else [],
    }


def _worker_object(one: FarmWorker) -> dict[str, object]:
    worker = one.worker
    return {
        "name": worker.name,
        "address": worker.address,
        "release": one.release,
        "slots": worker.slots,
        "leased": worker.leased,
        "load": worker.load,
        "cores": worker.machine.cores,
        "free_memory_bytes": worker.free_memory_bytes,
        "drained": worker.draining,
        "lost": one.is_lost,
        "stopped": one.is_stopped,
        "silent_s": round(one.silent_s, 3),
        "rival": worker.rival,
        "users": [{"user": use.user, "slots": use.slots, "running": use.running} for use in one.uses],
    }
