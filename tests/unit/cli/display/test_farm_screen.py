"""The screen of a farm: every worker with its slots, those with a trouble first."""

import msgspec
import pytest
from rich.cells import cell_len

from termite.cli.display.farm_screen import FarmView, farm_lines, press_in_farm
from termite.cli.display.top_screen import Style
from termite.engine.model import MachineFacts
from termite.engine.wire.protocol.fleet_messages import FarmWorker, ListedWorker


def farm(count: int) -> FarmView:
    workers = [
        FarmWorker(
            ListedWorker(
                f"w{at:03}", f"host{at}:1235", 8, at % 9, at / 10, at << 30, draining=at == 7, rival="x:1" * (at == 9)
            ),
            silent_s=12.0 if at == 11 else 1.0,
        )
        for at in range(count)
    ]
    return FarmView("boss:1233", workers)


@pytest.mark.parametrize(("width", "height"), [(80, 24), (30, 3), (200, 300), (1, 1)])
def test_every_screen_is_exactly_as_large_as_the_terminal(width: int, height: int) -> None:
    for view in (farm(0), farm(3), farm(200), FarmView("\x1b[31m", trouble="lost\x1b")):
        lines = farm_lines(view, width, height)
        assert len(lines) == height
        assert {cell_len(line.text) for line in lines} == {width}
        assert all(line.text.isprintable() for line in lines)


def test_slots_are_summed_and_troubles_stand_first() -> None:
    view = farm(20)
    lines = farm_lines(view, 140, 30)
    text = [line.text.rstrip() for line in lines]
    assert f"20 workers, 1 of them drained; {sum(at % 9 for at in range(20))} of 160 slots are leased" in text[1]
    assert text[3].startswith("w007") and "drained" in text[3] and text[3].endswith("host7:1235")
    assert text[4].startswith("w009") and text[5] == "    another worker at x:1 has the same name"
    assert text[6].startswith("w011") and "silent for 12.0 s" in text[6]
    assert [line.style for line in lines[3:8]] == [Style.ALARM] * 4 + [Style.PLAIN]
    lost = FarmView("boss:1", [msgspec.structs.replace(view.workers[0], is_lost=True, silent_s=30.0)])
    text = [line.text.rstrip() for line in farm_lines(lost, 140, 30)]
    assert text[1].startswith("0 workers") and text[2] == "no worker is registered"
    assert text[4].startswith("w000") and "lost: silent for 30.0 s" in text[4]


def test_a_terminal_of_80_columns_shows_every_state_and_who_was_stopped_stands_last() -> None:
    view = farm(12)
    stopped = msgspec.structs.replace(view.workers[0], is_stopped=True, silent_s=61.0)
    view.workers = [stopped, *view.workers[1:]]
    lines = farm_lines(view, 80, 24)
    text = "\n".join(line.text for line in lines)
    assert all(word in text for word in ("drained", "x:1 has the same name", "silent for 12.0 s", "stopped 1 min 1 s"))
    (last,) = [line for line in lines if line.text.startswith("w000")]
    assert last.style is Style.PLAIN and "w010" in text.partition("w000")[0]
    assert "11 workers, 1 of them drained" in text


def test_keys_move_through_a_long_list() -> None:
    view = farm(100)
    for _ in range(300):
        assert press_in_farm("down", view)
        farm_lines(view, 100, 24)
    assert view.first == 79
    assert "w099" in farm_lines(view, 100, 24)[-1].text
    assert "workers 80 to 100 of 100" in farm_lines(view, 80, 24)[0].text
    assert press_in_farm("up", view)
    assert view.first == 78
    assert not press_in_farm("q", view)


@pytest.mark.parametrize(("count", "height"), [(15, 24), (30, 24), (100, 24), (3, 5), (2, 4)])
def test_every_worker_with_two_lines_can_be_reached(count: int, height: int) -> None:
    view = farm(count)
    view.workers = [
        msgspec.structs.replace(one, worker=msgspec.structs.replace(one.worker, rival="host.example.org:1235"))
        for one in view.workers
    ]
    seen = set()
    for _ in range(count + 1):
        seen |= {line.text[:4] for line in farm_lines(view, 80, height) if line.text.startswith("w0")}
        press_in_farm("down", view)
    assert len(seen) == count


def test_a_farm_without_workers_and_a_lost_coordinator_are_said() -> None:
    assert "no worker is registered" in farm_lines(FarmView("b:1"), 80, 5)[2].text
    machine = MachineFacts(cores=4)
    one = ListedWorker("w", "h:1", 4, 0, 0.0, 0, draining=False, machine=machine)
    known = FarmView("b:1", [FarmWorker(one)], "no answer")
    lines = farm_lines(known, 100, 8)
    assert lines[2].text.startswith("no answer")
    assert lines[4].text.split()[:6] == ["w", "0", "of", "4", "0.0", "4"]
