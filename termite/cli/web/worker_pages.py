"""The pages of one worker: for the tree of a master that uses it, and for the whole farm."""

from collections.abc import Iterator, Sequence

from termite.cli.amounts import duration_text, size_text
from termite.cli.display.job_text import slot_time_s
from termite.cli.web.html_text import Html, button, page, rows_of, table, tag
from termite.cli.web.pages import MOST_ROWS, jobs_table, running_table, worker_state_mark
from termite.engine.history.logic.job_record import JobRecord
from termite.engine.history.logic.live_state import LiveState
from termite.engine.wire.protocol.fleet_messages import LeaseReport, WorkerReport


def worker_page(name: str, live: LiveState | None, jobs: Sequence[JobRecord], now_s: float, report: Html) -> Html:
    """Return the page of a worker for a tree: its state, and its jobs now and of late.

    `jobs` are those of the newest build, and those that were started by hand. `report` is of
    `report_part`.
    """
    worker = live.workers.get(name) if live else None
    here = [job for job in jobs if job.worker == name]
    failed = [job for job in jobs if any(attempt.worker == name for attempt in job.attempts)]
    now = [job for job in live.running(now_s) if job.worker == name] if live else []
    pairs: list[tuple[str, object]] = [
        ("jobs in the newest build and by hand", len(here)),
        ("CPU used by them", duration_text(sum(job.user_s + job.system_s for job in here))),
        ("failed attempts", len(failed)),
    ]
    if worker:
        load = f"{worker.load:.1f}" if worker.load >= 0 else "not known"
        pairs += [
            ("address", worker.address or "not known"),
            ("termite", worker.version or "not known"),
            ("slots", f"{worker.running} of {worker.slots} busy"),
            ("cores, load", f"{worker.cores or 'not known'}, {load}"),
            ("clock", f"{worker.clock_offset_ms} ms beside the master's"),
            ("state", worker_state_mark(worker, now_s)),
        ]
    else:
        pairs.append(("state", "no lease"))
    return page(
        f"worker {name}",
        tag("h2", "In this tree"),
        rows_of(pairs),
        *([tag("h2", "Its jobs now"), running_table(now[:MOST_ROWS], now_s)] if now else []),
        report,
        tag("h2", "Its jobs in the newest build and by hand, the slowest first"),
        jobs_table(sorted(here, key=slot_time_s, reverse=True)[:MOST_ROWS]),
        tag("h2", "Attempts that failed on it"),
        jobs_table(failed[:MOST_ROWS]),
    )


def report_part(report: WorkerReport | None, trouble: str = "") -> Html:
    """Return what a worker says of itself, as a part of a page.

    `trouble` says why there is no report.
    """
    if report is None:
        return tag("p", f"The worker says nothing: {trouble}.")
    return Html(
        "".join(
            [
                tag("p", tag("strong", f"This is no longer so: {trouble}.")) if trouble else "",
                tag("h2", "The worker since its start"),
                rows_of(_total_rows(report)),
                tag("h2", "Leases"),
                _leases_table(report.leases),
                tag("h2", "Stores"),
                _stores_table(report),
                tag("h2", "End of its log"),
                _log(report.log),
            ]
        )
    )


def drain_form(name: str, token: str, *, is_drained: bool) -> Html:
    """Return the button that drains a worker, or ends that."""
    if is_drained:
        return button("Let it take jobs again", ["undrain", name], token)
    return button("Drain: take no new jobs", ["drain", name], token)


def _total_rows(report: WorkerReport) -> Iterator[tuple[str, object]]:
    total = report.total
    running = f", while {total.running} jobs still run" if total.running else ""
    yield "state", f"drained: it takes no new jobs{running}" if report.is_drained else "takes jobs"
    yield "runs since", duration_text(report.up_s)
    yield "jobs", f"{total.jobs}, {total.running} of them run now"
    yield "slots in leases", total.slots
    yield "CPU used by its jobs", duration_text(total.cpu_s)
    yield "average parallelism", f"{total.job_s / max(report.up_s, 1e-3):.2f} since its start"


def _leases_table(leases: Sequence[LeaseReport]) -> Html:
    if not leases:
        return tag("p", "None.")
    rows = [
        [
            lease.user or "a user",
            duration_text(lease.since_s),
            f"{lease.running} of {lease.slots}",
            lease.jobs,
            duration_text(lease.cpu_s),
            f"{lease.job_s / lease.busy_s:.1f}" if lease.busy_s else "",
        ]
        for lease in leases
    ]
    head = ["user", "since", "busy", "jobs", "CPU", "average parallelism"]
    return table(head, rows, numbers=(1, 2, 3, 4, 5))


def _stores_table(report: WorkerReport) -> Html:
    if report.stores is None:
        return tag("p", "Their sizes are being measured.")
    if not report.stores:
        return tag("p", "None.")
    rows = [
        [
            store.name,
            size_text(store.size_bytes),
            size_text(store.max_bytes),
            store.files,
            store.max_files,
        ]
        for store in report.stores
    ]
    return table(["store", "size", "limit", "files", "limit"], rows, numbers=(1, 2, 3, 4))


def _log(records: Sequence[str]) -> Html:
    lines = [line for record in records for line in record.split("\n")]
    return tag("pre", Html("\n".join(tag("span", line) for line in lines))) if lines else tag("p", "Nothing.")
