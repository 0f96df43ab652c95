"""The pages of a farm, as functions of what its coordinator and its workers say."""

from collections.abc import Iterator, Sequence

from termite.cli.amounts import duration_text, size_text
from termite.cli.display.worker_words import Standing, farm_standing, farm_word
from termite.cli.web.html_text import Html, address_of, link, page, rows_of, state_mark, table, tag
from termite.cli.web.worker_pages import drain_form, report_part
from termite.engine.wire.protocol.fleet_messages import FarmWorker, WholeFarm, WorkerReport

USERS_NAMED = 4  # of one worker in the list of all


def farm_page(address: str, now: Html) -> Html:
    """Return the front page of the farm at `address`; `now` is of `farm_part`."""
    return page(f"farm of {address}", tag("section", now, id="now", data_refresh="/now"))


def farm_part(farm: WholeFarm | None, trouble: str) -> Html:
    """Return the workers and the users of a farm, as a part of a page.

    `farm` is the last known state, or None. `trouble` says why it is not the present one.
    """
    said = tag("p", tag("strong", f"{trouble}.")) if trouble else Html("")
    if farm is None:
        return said or Html(tag("p", "Nothing is known of this farm yet."))
    return Html(
        "".join(
            [
                said,
                tag("h2", "Farm"),
                rows_of(_farm_rows(farm)),
                tag("h2", "Workers"),
                _workers_table(farm),
                tag("h2", "Users"),
                _users_table(farm),
            ]
        )
    )


def farm_worker_page(name: str, now: Html, form: Html) -> Html:
    """Return the page of a worker; `now` is of `farm_worker_part`, `form` drains it."""
    now_section = tag("section", now, id="now", data_refresh=address_of(["worker-now", name]))
    return page(f"worker {name}", tag("h1", name), form, now_section)


def farm_worker_part(known: FarmWorker | None, interval_s: float, report: WorkerReport | None, trouble: str) -> Html:
    """Return the state of a worker as its coordinator and as it says it."""
    rows = rows_of(_worker_rows(known, interval_s)) if known else tag("p", "The coordinator does not know it.")
    return Html(rows + report_part(report, trouble))


def farm_drain_form(name: str, known: FarmWorker | None, token: str) -> Html:
    """Return the button that drains a worker, or nothing if it is not there."""
    if known is None or known.is_gone:
        return Html("")
    return drain_form(name, token, is_drained=known.worker.draining)


def _farm_rows(farm: WholeFarm) -> Iterator[tuple[str, object]]:
    there = [one.worker for one in farm.workers if not one.is_gone]
    standings = [farm_standing(one, farm.interval_s) for one in farm.workers]
    yield "workers", len(there)
    yield "slots in use", f"{sum(one.leased for one in there)} of {sum(one.slots for one in there)}"
    yield "drained", sum(one.draining for one in there)
    yield "silent", standings.count(Standing.SILENT)
    yield "lost in the last hour", standings.count(Standing.LOST)
    yield "stopped in the last hour", standings.count(Standing.STOPPED)
    yield "termite of the coordinator", farm.release


def _workers_table(farm: WholeFarm) -> Html:
    head = ["worker", "state", "slots in use", "load", "cores", "free memory", "termite", "users", "address"]
    rows = [
        [
            link(["worker", one.worker.name], one.worker.name),
            _state_mark(one, farm.interval_s),
            "" if one.is_gone else f"{one.worker.leased} of {one.worker.slots}",
            "" if one.is_gone else f"{one.worker.load:.1f}",
            one.worker.machine.cores or "?",
            "" if one.is_gone else size_text(one.worker.free_memory_bytes),
            one.release or "?",
            "" if one.is_gone else _users_of(one),
            one.worker.address,
        ]
        for one in sorted(farm.workers, key=lambda one: one.is_gone)
    ]
    return table(head, rows, numbers=(2, 3, 4, 5)) if rows else tag("p", "No worker is registered.")


def _state_mark(known: FarmWorker, interval_s: float) -> Html:
    return state_mark(farm_standing(known, interval_s), farm_word(known, interval_s) or "answers")


def _users_of(one: FarmWorker) -> str:
    named = [f"{use.user or 'a user'}: {use.slots}" for use in one.uses[:USERS_NAMED]]
    more = len(one.uses) - USERS_NAMED
    return ", ".join([*named, f"and {more} more"] if more > 0 else named)


def users_of_farm(farm: WholeFarm) -> dict[str, tuple[int, int, int]]:
    """Return the slots of each user, how many of them have a job, and on how many workers."""
    sums: dict[str, tuple[int, int, int]] = {}
    for use in (use for one in farm.workers if not one.is_gone for use in one.uses):
        slots, running, workers = sums.get(use.user, (0, 0, 0))
        sums[use.user] = (slots + use.slots, running + use.running, workers + 1)
    return dict(sorted(sums.items(), key=lambda pair: (-pair[1][0], pair[0])))


def _users_table(farm: WholeFarm) -> Html:
    rows: list[Sequence[object]] = [
        [user or "a user", slots, running, workers] for user, (slots, running, workers) in users_of_farm(farm).items()
    ]
    return table(["user", "slots", "jobs run", "workers"], rows, numbers=(1, 2, 3)) if rows else tag("p", "Nobody.")


def _worker_rows(known: FarmWorker, interval_s: float) -> Iterator[tuple[str, object]]:
    worker, machine = known.worker, known.worker.machine
    yield "state", _state_mark(known, interval_s)
    yield "last sign of life", f"{duration_text(known.silent_s)} ago"
    yield "address", worker.address
    yield "termite", known.release or "not known"
    yield "slots in use", f"{worker.leased} of {worker.slots}"
    yield "users", _users_of(known) or "nobody"
    yield "load", f"{worker.load:.1f}"
    yield "cores", machine.cores or "not known"
    yield "free memory", size_text(worker.free_memory_bytes)
    yield "machine", ", ".join(filter(None, (machine.architecture, machine.cpu, machine.kernel))) or "not known"
