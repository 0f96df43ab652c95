"""The pages of a farm say what its coordinator and its workers say, and no name becomes markup."""

import html
import json
import re
import time

import msgspec
import pytest

from termite.cli.display.worker_words import Standing
from termite.cli.web.access import FEEDS
from termite.cli.web.farm.farm_metrics import farm_metrics_text, farm_object
from termite.cli.web.farm.farm_pages import (
    farm_drain_form,
    farm_page,
    farm_part,
    farm_worker_page,
    farm_worker_part,
    users_of_farm,
)
from termite.cli.web.html_text import Html
from termite.cli.web.static_files import STATIC
from termite.engine.model import MachineFacts
from termite.engine.wire.protocol.fleet_messages import (
    FarmWorker,
    LeaseReport,
    ListedWorker,
    SlotUse,
    StoreReport,
    WholeFarm,
    WorkerReport,
)
from tests.build_pages import rows_of_page
from tests.unit.cli.web.test_pages import HOSTILE, Reader

PAGE_BYTES = 500_000
PAGE_CPU_S = 0.05


def farm_of(count: int, name: str = "w", user: str = "anna@desk") -> WholeFarm:
    machine = MachineFacts("x86_64", "Linux", "a processor", b"", 8, 8)
    workers = [
        FarmWorker(
            ListedWorker(
                f"{name}{at:03}", f"host{at}:1235", 8, at % 9, at / 10, at << 30, draining=at == 7, machine=machine
            ),
            silent_s=12.0 if at == 5 else 1.0,
            is_lost=at == 6,
            is_stopped=at == 8,
            release="1.2.3",
            uses=(SlotUse(user, 2, 1), SlotUse(f"{user}{at}", 1, 0)) if at % 2 else (),
        )
        for at in range(count)
    ]
    return WholeFarm(tuple(workers), 5.0, "1.2.4")


def report_of(name: str, text: str = "a record") -> WorkerReport:
    used = LeaseReport("anna@desk", 100.0, 8, 2, 70, 250.0, 300.0, 50.0)
    stores = (StoreReport("user-60800", 5 << 30, 1234, 10 << 30, 500_000),)
    return WorkerReport(name, True, 1000.0, used, (used,) * 64, stores, (text,) * 200)


def test_every_figure_of_the_farm_is_the_coordinators() -> None:
    rows = rows_of_page(farm_page("boss:1233", farm_part(farm_of(10), "")))
    assert ["workers", "8"] in rows and ["drained", "1"] in rows and ["silent", "1"] in rows
    assert ["slots in use", f"{sum(at for at in range(8) if at != 6)} of 64"] in rows
    assert ["lost in the last hour", "1"] in rows and ["stopped in the last hour", "1"] in rows
    assert ["termite of the coordinator", "1.2.4"] in rows
    named = {row[0]: row for row in rows if len(row) == 9}
    assert named["w003"] == [
        "w003", "answers", "3 of 8", "0.3", "8", "3.0 GiB", "1.2.3", "anna@desk: 2, anna@desk3: 1", "host3:1235",
    ]  # fmt: skip
    words = ["silent for 12.0 s", "lost: silent for 1.00 s", "drained", "stopped 1.00 s ago"]
    assert [named[f"w00{at}"][1] for at in (5, 6, 7, 8)] == words
    assert named["w006"][2:6] == ["", "", "8", ""], "what it said last is old"
    assert [row[0] for row in rows if len(row) == 9][-2:] == ["w006", "w008"], "those that are gone stand last"
    assert ["anna@desk", "10", "5", "5"] in rows and ["anna@desk9", "1", "0", "1"] in rows


def test_every_state_of_a_worker_has_a_mark_of_its_own() -> None:
    style = (STATIC / "style.css").read_text()
    for standing in Standing:
        assert f".state.{standing}" in style, standing
    page = farm_part(farm_of(10), "")
    marks = re.findall(r'<span class="state (\w+)">([^<]*)</span>', page)
    assert {kind for kind, _ in marks} == {"well", "silent", "lost", "drained", "stopped"}
    for kind, words in marks:
        assert words.split()[0].rstrip(":") == ("answers" if kind == "well" else kind)


def test_every_figure_of_a_worker_is_its_own() -> None:
    (known,) = farm_of(1).workers
    rows = rows_of_page(farm_worker_part(known, 5.0, report_of("w000"), ""))
    assert ["state", "answers"] in rows and ["termite", "1.2.3"] in rows
    assert ["jobs", "70, 2 of them run now"] in rows and ["CPU used by its jobs", "4 min 10 s"] in rows
    assert ["average parallelism", "0.30 since its start"] in rows
    assert ["anna@desk", "1 min 40 s", "2 of 8", "70", "4 min 10 s", "6.0"] in rows
    assert ["user-60800", "5.0 GiB", "10.0 GiB", "1234", "500000"] in rows


def test_what_is_not_known_is_said() -> None:
    assert "Nothing is known" in farm_part(None, "")
    assert "gone." in farm_part(None, "gone") and "w001" in farm_part(farm_of(2), "gone")
    (known,) = farm_of(1).workers
    assert "The worker says nothing: it is silent." in farm_worker_part(known, 5.0, None, "it is silent")
    assert "no longer so: gone." in farm_worker_part(None, 5.0, report_of("w"), "gone")
    measuring = msgspec.structs.replace(report_of("w"), stores=None, leases=(), log=())
    assert "being measured" in farm_worker_part(None, 5.0, measuring, "")


def test_only_a_worker_that_is_there_can_be_drained() -> None:
    farm = farm_of(8)
    assert 'action="/drain/w000"' in farm_drain_form("w000", farm.workers[0], "t")
    assert 'action="/undrain/w007"' in farm_drain_form("w007", farm.workers[7], "t")
    assert farm_drain_form("w006", farm.workers[6], "t") == farm_drain_form("x", None, "t") == ""


def test_hostile_names_and_records_are_text_on_every_page() -> None:
    farm = farm_of(3, HOSTILE[:40], HOSTILE)
    hostile = msgspec.structs.replace(
        farm.workers[0].worker, name=HOSTILE, address=HOSTILE, rival=HOSTILE, machine=MachineFacts(HOSTILE, HOSTILE)
    )
    known = msgspec.structs.replace(farm.workers[0], worker=hostile, release=HOSTILE)
    farm = msgspec.structs.replace(farm, workers=(known, *farm.workers), release=HOSTILE)
    used = msgspec.structs.replace(report_of("w").total, user=HOSTILE)
    report = report_of(HOSTILE, f"{HOSTILE}\nthe next line")
    report = msgspec.structs.replace(report, leases=(used,), stores=(StoreReport(HOSTILE, 1, 1, 1, 1),))
    for page in (
        farm_page(HOSTILE, farm_part(farm, HOSTILE)),
        farm_worker_page(
            HOSTILE,
            farm_worker_part(known, 5.0, report, HOSTILE),
            farm_drain_form(HOSTILE, known, "t"),
        ),
    ):
        read = Reader(page)
        assert read.open == [] and "img" not in read.names
        assert page.count("<script") == 1
        assert not {name for name in read.attributes if name.startswith("on")}
        assert "\x1b" not in html.unescape(re.sub("<[^>]*>", "", page)) and "\u202e" not in page
        assert "<script>alert('x')</script>" in read.text
    json.dumps(farm_object(HOSTILE, farm, HOSTILE))
    text = farm_metrics_text(farm, HOSTILE).decode()
    assert "\x1b" not in text and "\u202e" not in text
    assert all(re.match(r"[#a-z]", line) for line in text.splitlines()), "a name made a line of its own"


@pytest.mark.parametrize("what", ["front", "worker", "metrics", "status"])
def test_a_page_of_200_workers_is_small_and_costs_little(what: str) -> None:
    farm = farm_of(200)
    farm = msgspec.structs.replace(farm, workers=(*farm.workers,))
    report = report_of("w000", "x" * 300)

    def make() -> str | bytes:
        match what:
            case "front":
                return farm_page("boss:1233", farm_part(farm, ""))
            case "worker":
                return farm_worker_page("w000", farm_worker_part(farm.workers[0], 5.0, report, ""), Html(""))
            case "metrics":
                return farm_metrics_text(farm, "")
        return json.dumps(farm_object("boss:1233", farm, ""))

    spent_s = []
    for _ in range(5):
        before_s = time.process_time()
        made = make()
        spent_s.append(time.process_time() - before_s)
    assert len(made) < PAGE_BYTES
    assert min(spent_s) < PAGE_CPU_S, spent_s


def test_metrics_and_json_say_the_same_as_the_page() -> None:
    farm = farm_of(8)
    text = farm_metrics_text(farm, "").decode()
    assert "termite_coordinator_up 1.0" in text
    assert 'termite_worker_drained{worker="w007"} 1.0' in text
    assert 'termite_worker_lost{worker="w006"} 1.0' in text
    assert 'termite_worker_slots_leased{worker="w003"} 3.0' in text
    assert 'termite_user_slots{user="anna@desk"} 8.0' in text
    assert "termite_coordinator_up 0.0" in farm_metrics_text(farm, "gone").decode()
    told = farm_object("boss:1233", farm, "")
    workers = told["workers"]
    assert isinstance(workers, list) and workers[7]["drained"] and workers[6]["lost"] and workers[3]["leased"] == 3
    assert workers[3]["users"][0] == {"user": "anna@desk", "slots": 2, "running": 1}
    assert users_of_farm(farm)["anna@desk"] == (8, 4, 4)
    assert "/metrics" in FEEDS and "/status.json" in FEEDS
