"""The screen of `termite-ctl top`: true at every moment, as wide as the terminal, cheap."""

import random
import time

import msgspec
import pytest
from rich.cells import cell_len

from termite.cli.amounts import size_text
from termite.cli.display.top_screen import HELP, Pane, Style, TopState, TopView, press, screen_lines
from termite.engine.errors import Reason
from termite.engine.history.logic.job_record import BuildRecord, Cause, JobRecord, Where, Why
from termite.engine.history.logic.live_events import (
    BuildEnded,
    BuildStarted,
    JobHome,
    JobSent,
    QueueWaits,
    Snapshot,
    WorkerChanged,
    WorkerState,
)
from termite.engine.history.logic.live_state import LiveState
from tests.synthetic_builds import SyntheticBuild, events_of, synthetic_build


def state_after(events: int, jobs: int = 100) -> TopState:
    state = TopState()
    for event in events_of(synthetic_build(jobs))[:events]:
        state.apply(event)
    state.now_s = state.live.at_s + 10
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


def test_on_a_narrow_screen_a_long_title_hides_no_progress_and_the_help_is_whole() -> None:
    state = state_after(40)
    (build,) = state.live.builds.values()
    state.live.builds[build.id] = msgspec.structs.replace(build, text="make " + "LONG=words " * 20)
    lines = [line.text.rstrip() for line in screen_lines(state, TopView(), state.live.at_s + 10, 80, 24)]
    (shown,) = [line for line in lines if line.startswith(f"build {build.id}: make LONG")]
    assert "jobs done" in shown and shown.endswith(" s") and "…" in shown
    assert max(map(len, HELP.splitlines())) <= 80


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


def test_free_memory_is_shown_if_it_is_known() -> None:
    state = state_after(20)
    state.apply(WorkerChanged(WorkerState(name="zeta")))
    lines = [line.text for line in screen_lines(state, TopView(), state.live.at_s, 120, 40)]
    (known,) = [line for line in lines if line.startswith("alpha")]
    (unknown,) = [line for line in lines if line.startswith("zeta")]
    assert size_text(state.live.workers["alpha"].free_memory_bytes) in known
    assert "?" in unknown


def test_silent_and_refused_workers_stand_first_and_say_why() -> None:
    state = state_after(20)
    now_s = state.live.at_s + 100
    state.apply(WorkerChanged(WorkerState(name="zeta", running=3, silent_since_s=now_s - 7)))
    state.apply(WorkerChanged(WorkerState(name="yota", reason=Reason.NOT_TRUSTED.value)))
    state.apply(WorkerChanged(WorkerState(name="alpha", gone_since_s=now_s - 9, is_lost=True)))
    state.apply(WorkerChanged(WorkerState(name="aleph", gone_since_s=now_s - 5)))
    state.apply(QueueWaits("a slot"))
    small = "\n".join(line.text for line in screen_lines(state, TopView(), now_s, 80, 24))
    assert "silent for 7.00 s; 3 jobs wait for it" in small and "refused: the other side does not belong" in small
    assert "lost: silent for 9.00 s" in small
    named = [line.text.partition(" ")[0] for line in screen_lines(state, TopView(), now_s, 120, 40)]
    assert named.index("zeta") < named.index("beta") < named.index("aleph")
    alarms = [line.text for line in screen_lines(state, TopView(), now_s, 120, 40) if line.style is Style.ALARM]
    assert any("the queue waits for a slot" in text for text in alarms)
    assert any(text.startswith("zeta") and "silent for 7.00 s; 3 jobs wait for it" in text for text in alarms)
    assert any(text.startswith("alpha") and text.rstrip().endswith("lost: silent for 9.00 s") for text in alarms)
    assert not any(text.startswith("aleph") for text in alarms), "it was stopped by somebody"
    assert any(text.startswith("yota") and "does not belong" in text for text in alarms)


def test_slowest_and_reasons_are_those_of_the_jobs_that_came_home() -> None:
    _, jobs = synthetic_build(300)
    state = TopState()
    for job in random.Random(1).sample(jobs, len(jobs)):
        state.apply(JobHome(job))
    held = sorted((job.home_s - job.sent_s for job in jobs if job.sent_s), reverse=True)
    assert [job.home_s - job.sent_s for job in state.listed(Pane.SLOWEST)] == held[:100]
    assert sum(state.local.values()) == sum(job.where is Where.HERE for job in jobs)


def test_rates_are_means_over_the_last_ten_seconds() -> None:
    """A job comes home each half second, the job N with N KiB sent and 100 bytes received."""
    _, jobs = synthetic_build(20)
    state = TopState()

    def shown(now_s: float) -> str:
        return screen_lines(state, TopView(), now_s, 120, 24)[1].text.rstrip()

    assert shown(100.0) == "0 running, 0 waiting; 0.0 jobs/s, 0 bytes/s sent, 0 bytes/s received"
    for number in range(1, 41):
        home = {"home_s": 100 + number / 2, "sent_bytes": number << 10, "received_bytes": 100}
        state.apply(JobHome(msgspec.structs.replace(jobs[9], id=number, **home)))
    assert state.rates(120.0) == (2.1, sum(range(20, 41)) * 102.4, 210.0)
    assert shown(120.0).endswith("; 2.1 jobs/s, 63 KiB/s sent, 210 bytes/s received")
    assert state.rates(125.25) == (1.0, sum(range(31, 41)) * 102.4, 100.0)
    state.fill(1, [msgspec.structs.replace(jobs[9], id=50, home_s=126.0, sent_bytes=0, received_bytes=0)])
    assert state.rates(127.0)[0] == 0.8, "seven of these jobs, and one that was recorded before"
    assert state.rates(137.0) == (0.0, 0.0, 0.0)
    state.apply(JobHome(jobs[9]))
    state.apply(Snapshot(at_s=140.0, master=state.live.master))
    assert state.rates(jobs[9].home_s) == (0.0, 0.0, 0.0), "another master begins at zero"


def test_jobs_from_before_are_counted_once() -> None:
    build, jobs = synthetic_build(100)
    events = events_of(SyntheticBuild(build, jobs))
    whole = TopState()
    for event in events:
        whole.apply(event)

    def snapshot_after(count: int) -> Snapshot:
        live = LiveState()
        for event in events[:count]:
            live.apply(event)
        return Snapshot(
            at_s=live.at_s, master=live.master, jobs=tuple(live.jobs.values()), builds=tuple(live.builds.values())
        )

    def recorded_after(count: int) -> list[JobRecord]:
        return [event.job for event in events[:count] if isinstance(event, JobHome)]

    for fills in ((200, 200, 200), (200, 260, 200), (200, 330, 250)):  # records go on while they are read
        late, (first, on_disk, last) = TopState(), fills
        late.apply(snapshot_after(first))
        late.fill(build.id, recorded_after(on_disk))
        for event in events[first:last]:
            late.apply(event)
        if last > first:  # events are missed, and a new Snapshot comes
            late.apply(snapshot_after(300))
            late.fill(build.id, [*recorded_after(300), *late.live.jobs.values()])  # those were just written
            last = 300
        for event in events[last:]:
            late.apply(event)
        assert late.local == whole.local and late.listed(Pane.SLOWEST) == whole.listed(Pane.SLOWEST)


def test_the_slowest_jobs_are_kept_and_are_those_of_the_builds_that_run() -> None:
    _, jobs = synthetic_build(20)
    state = TopState()
    started = BuildRecord(id=1, started_s=1.0)
    state.apply(BuildStarted(started))
    slow = msgspec.structs.replace(jobs[9], id=1, build=1, sent_s=1.0, home_s=9999.0)
    state.apply(JobHome(slow))
    for number in range(2, 2000):
        state.apply(JobHome(msgspec.structs.replace(slow, id=number, home_s=2.0 + number / 1000)))
    assert state.listed(Pane.SLOWEST)[0] == slow == state.job(1) and len(state.listed(Pane.SLOWEST)) == 100
    local = msgspec.structs.replace(jobs[9], id=3000, build=1, where=Where.HERE, cause=Cause(Why.SHORT))
    state.apply(JobHome(local))
    state.apply(BuildEnded(started))
    assert state.listed(Pane.SLOWEST)[0] == slow and state.local == {"short": 1}, "the last build, as none runs"
    state.apply(BuildStarted(BuildRecord(id=2, started_s=1.0)))
    assert state.listed(Pane.SLOWEST) == [] and not state.local
    state.apply(JobHome(msgspec.structs.replace(slow, id=4000, build=2)))
    state.apply(JobHome(msgspec.structs.replace(slow, id=4001)))  # of the build that has ended
    assert [job.id for job in state.listed(Pane.SLOWEST)] == [4000]


def test_a_worker_with_two_lines_hides_no_other_one_without_a_word() -> None:
    state = state_after(20)
    for number in range(40):
        state.apply(WorkerChanged(WorkerState(name=f"refused{number:02}", reason=Reason.NOT_TRUSTED.value)))
    lines = [line.text.rstrip() for line in screen_lines(state, TopView(), state.live.at_s, 80, 24)]
    named = sum(line.startswith("refused") for line in lines)
    (more,) = [line for line in lines if line.startswith("and ")]
    assert more == f"and {len(state.live.workers) - named} more workers"
    assert any("[running]" in line for line in lines)


def marked_line(state: TopState, view: TopView, height: int = 24) -> str:
    """Return the marked line of the screen, of which there is one."""
    lines = screen_lines(state, view, state.live.at_s + 10, 80, height)
    (marked,) = [line.text for line in lines if line.style is Style.MARKED]
    return marked


def test_keys_mark_open_and_close() -> None:
    state, view = state_after(300), TopView()
    running = state.listed(Pane.RUNNING)
    assert len(running) > 2
    for key in ("down", "j", "up"):
        assert press(key, state, view)
    assert int(marked_line(state, view).split()[0]) == running[1].id
    assert press("enter", state, view)
    assert view.open_job == running[1].id
    lines = screen_lines(state, view, state.live.at_s, 100, 30)
    assert running[1].text.partition("\n")[0][:20] in "\n".join(line.text for line in lines)
    press("escape", state, view)
    assert view.open_job == 0
    press("tab", state, view)
    assert view.pane is Pane.WAITING
    assert not press("q", state, view)


def test_a_mark_stays_on_its_job_and_goes_to_its_neighbour_afterwards() -> None:
    state, view = state_after(300), TopView()
    running = state.listed(Pane.RUNNING)
    for _ in range(3):
        press("down", state, view)
    state.apply(JobHome(running[0]))
    state.apply(JobHome(running[2]))
    assert int(marked_line(state, view).split()[0]) == running[3].id
    state.apply(JobHome(running[3]))
    assert int(marked_line(state, view).split()[0]) == running[4].id
    for job in running:
        state.apply(JobHome(job))
    press("enter", state, view)
    assert view.open_job == 0


def test_every_job_of_a_long_list_can_be_marked_on_a_small_terminal() -> None:
    state, view = TopState(), TopView()
    _, jobs = synthetic_build(20)
    for number in range(1, 201):
        state.apply(JobSent(msgspec.structs.replace(jobs[9], id=number, sent_s=number, home_s=0.0, ended_s=0.0)))
    for number in range(1, 201):
        assert int(marked_line(state, view).split()[0]) == number
        press("down", state, view)
    assert "200 of 200" in "\n".join(line.text for line in screen_lines(state, view, 2000.0, 80, 24))
    for key, number in (("page up", 190), ("home", 1), ("page down", 11), ("end", 200), ("up", 199)):
        press(key, state, view)
        assert int(marked_line(state, view).split()[0]) == number


def test_all_of_a_job_can_be_read_on_a_small_terminal() -> None:
    _, jobs = synthetic_build(20)
    output = "".join(f"line {number} of what it printed\n" for number in range(60)).encode()
    job = msgspec.structs.replace(jobs[9], text="gcc " + "-DLONG=1 " * 400, output=output, output_bytes=len(output))
    state, view = TopState(), TopView()
    state.apply(JobHome(job))
    press("tab", state, view)
    press("tab", state, view)
    press("enter", state, view)
    seen = ""
    for _ in range(200):
        lines = screen_lines(state, view, 0.0, 80, 24)
        seen += lines[1].text
        press("down", state, view)
    last = "\n".join(line.text for line in screen_lines(state, view, 0.0, 80, 24))
    assert "line 59 of what it printed" in last and "because" not in last
    assert seen.count("-DLONG=1") == 400 and "because" in seen
    press("escape", state, view)
    press("enter", state, view)
    assert screen_lines(state, view, 0.0, 80, 24)[1].text.startswith("job ")


def test_a_thousand_running_jobs_cost_less_than_two_percent_of_a_core() -> None:
    _, jobs = synthetic_build(20)
    state = TopState()
    for number in range(1, 1001):
        job = msgspec.structs.replace(jobs[9], id=number, sent_s=1e9 + number, home_s=0.0, ended_s=0.0)
        state.apply(JobSent(job))
    screen_lines(state, TopView(), 2e9, 200, 60)
    costs = []
    for second in range(5):
        begun = time.process_time()
        screen_lines(state, TopView(), 2e9 + second, 200, 60)
        costs.append(time.process_time() - begun)
    assert min(costs) < 0.02, costs


def test_memory_is_bounded() -> None:
    _, jobs = synthetic_build(20)
    state = TopState()
    for number in range(5000):
        state.apply(JobHome(msgspec.structs.replace(jobs[number % 20], id=number, home_s=number * 0.1)))
        state.rates(number * 0.1)
    assert len(state.recent) == 1000
    assert len(state._homes) <= 102
    assert len(state.listed(Pane.SLOWEST)) <= 100
