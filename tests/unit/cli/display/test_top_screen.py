"""The screen of `termite-ctl top`: true at every moment, as wide as the terminal, cheap."""

import random

import msgspec
import pytest
from rich.cells import cell_len

from termite.cli.display.top_screen import Pane, Style, TopState, TopView, press, screen_lines
from termite.engine.errors import Reason
from termite.engine.history.logic.job_record import Where
from termite.engine.history.logic.live_events import JobHome, QueueWaits, WorkerChanged, WorkerState
from tests.synthetic_builds import events_of, synthetic_build


def state_after(events: int, jobs: int = 100) -> TopState:
    state = TopState()
    for event in events_of(synthetic_build(jobs))[:events]:
        state.apply(event)
    return state


@pytest.mark.parametrize(("width", "height"), [(80, 24), (40, 5), (200, 60), (10, 1)])
def test_every_screen_is_exactly_as_large_as_the_terminal(width: int, height: int) -> None:
    for seen in range(0, 500, 37):
        state = state_after(seen)
        for pane in Pane:
            for view in (TopView(pane), TopView(pane, is_help_open=True), TopView(pane, open_job=8)):
                lines = screen_lines(state, view, state.live.at_s + 10, width, height)
                assert len(lines) == height
                assert {cell_len(line.text) for line in lines} == {width}
                assert all(line.text.isprintable() for line in lines)


def test_what_is_shown_is_what_the_events_say() -> None:
    for seen in range(1, 450, 13):
        state = state_after(seen)
        text = "\n".join(line.text for line in screen_lines(state, TopView(), state.live.at_s + 60, 120, 60))
        running = [job for job in state.live.jobs.values() if job.sent_s]
        assert f"{len(running)} running, {len(state.live.jobs) - len(running)} waiting" in text
        for job in running[:10]:
            assert f"\n{job.id:>7}  " in text
        for worker in state.live.workers.values():
            assert worker.name in text


def test_silent_and_refused_workers_stand_first_and_say_why() -> None:
    state = state_after(20)
    now_s = state.live.at_s + 100
    state.apply(WorkerChanged(WorkerState(name="zeta", running=3, silent_since_s=now_s - 7)))
    state.apply(WorkerChanged(WorkerState(name="yota", reason=Reason.NEEDS_A_PERSON.value, detail="another secret")))
    state.apply(QueueWaits("a slot"))
    alarms = [line.text for line in screen_lines(state, TopView(), now_s, 120, 40) if line.style is Style.ALARM]
    assert any("the queue waits for a slot" in text for text in alarms)
    assert any(text.startswith("zeta") and "silent for 7.00 s; 3 jobs wait for it" in text for text in alarms)
    assert any(text.startswith("yota") and "another secret" in text for text in alarms)


def test_slowest_and_reasons_are_those_of_the_jobs_that_came_home() -> None:
    _, jobs = synthetic_build(300)
    state = TopState()
    for job in random.Random(1).sample(jobs, len(jobs)):
        state.apply(JobHome(job))
    held = sorted((job.home_s - job.sent_s for job in jobs if job.sent_s), reverse=True)
    assert [job.home_s - job.sent_s for job in state.listed(Pane.SLOWEST, 10)] == held[:10]
    assert sum(state.here.values()) == sum(job.where is Where.HERE for job in jobs)


def test_keys_mark_open_and_close() -> None:
    state, view = state_after(300), TopView()
    running = state.listed(Pane.RUNNING, 50)
    assert len(running) > 2
    for key in ("down", "j", "up"):
        assert press(key, state, view, 50)
    assert press("enter", state, view, 50)
    assert view.open_job == running[1].id
    lines = screen_lines(state, view, state.live.at_s, 100, 30)
    assert running[1].text.partition("\n")[0][:20] in "\n".join(line.text for line in lines)
    press("escape", state, view, 50)
    assert view.open_job == 0
    press("tab", state, view, 50)
    assert view.pane is Pane.WAITING
    assert not press("q", state, view, 50)


def test_memory_is_bounded() -> None:
    _, jobs = synthetic_build(20)
    state = TopState()
    for number in range(5000):
        state.apply(JobHome(msgspec.structs.replace(jobs[number % 20], id=number, home_s=number * 0.1)))
        state.rates(number * 0.1)
    assert len(state.recent) == 1000
    assert len(state._homes) <= 102
    assert len(state.listed(Pane.SLOWEST, 1000)) <= 100
