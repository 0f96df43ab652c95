"""Test what a recorder tells its readers, and that no disk holds it up."""

import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import cast
from unittest.mock import patch

import pytest
import trio
import trio.testing

from termite.cli.display.job_text import place_text
from termite.engine.decide.environment import Environment
from termite.engine.errors import Reason, Retryable
from termite.engine.fleet.lease import Lease
from termite.engine.history.logic.live_events import Event, Snapshot, WorkerState, pack_event, parse_event
from termite.engine.history.logic.live_state import LiveState
from termite.engine.history.logic.record_file import RECORDS_HEAD, part_name
from termite.engine.history.record_writer import PackedRecords, RecordWriter
from termite.engine.launch.output_tail import OutputTail
from termite.engine.loop.slot_numbers import SlotNumbers
from termite.engine.master.job import Job
from termite.engine.master.recording import record_keeper, recorder
from termite.engine.master.recording.fleet_view import FleetView
from termite.engine.master.recording.job_notes import JobNotes
from termite.engine.master.recording.job_records import RecordSettings
from termite.engine.master.recording.record_keeper import RecordKeeper
from termite.engine.master.recording.recorder import Recorder
from termite.engine.master.recording.recorder_config import RecorderConfig
from termite.engine.model import Change, Command, Exit, How, Invocation, Verdict
from termite.engine.wire.protocol import launcher_frames

ENV = Environment({})


class Scene:
    """A recorder with one reader, whose `state` is what it shows, and the workers that it sees."""

    def __init__(self, directory: Path | None = None) -> None:
        self.workers: dict[str, WorkerState] = {}
        config = RecorderConfig(directory, "/home/u/p", RecordSettings(b"home/u/p"))
        self.recorder = Recorder(config, lambda: FleetView(dict(self.workers)))
        self.state = LiveState()
        self.kinds: list[str] = []
        self._jobs = 0

    def job(self) -> Job:
        """Begin a job."""
        self._jobs += 1
        invocation = Invocation(("gcc", "-c", "x.c"), "/bin/gcc", True, "/home/u/p", ENV, How.DIRECT)
        command = Command(invocation.argv, invocation.exe, True, invocation.cwd, ENV, "gcc -c x.c")
        job = SimpleNamespace(
            id=self._jobs,
            notes=JobNotes(),
            command=command,
            verdict=Verdict(local=False),
            request=SimpleNamespace(invocation=invocation),
            launcher=SimpleNamespace(pid=1, gone=None),
            output=SimpleNamespace(tail=OutputTail(), forget=lambda: None),
            failures=[],
            plugin="make",
            place="",
        )
        self.recorder.begin(cast(Job, job))
        return cast(Job, job)

    def home(self, job: Job) -> None:
        """End a job on a worker."""
        with self.recorder.following(job), self.recorder.attempt(job, lease("w1")):
            job.notes.exit = Exit(0)
            self.recorder.published(job)

    def snapshot(self) -> Snapshot:
        return self.recorder._snapshot()

    def _read(self, event: Event) -> None:
        self.kinds.append(type(event).__name__)
        self.state.apply(parse_event(pack_event(event)))

    @asynccontextmanager
    async def read(self) -> AsyncIterator[None]:
        """Let the reader read, and the recorder write."""
        watchers = self.recorder.watchers
        self._read(self.snapshot())
        with patch.object(watchers, "emit", self._read), patch.object(watchers, "are_there", new=True):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.recorder.run)
                yield
                nursery.cancel_scope.cancel()
            self.recorder.close()

    def progress(self, build: int) -> int:
        """Return how many jobs of a build are done, as every view counts them."""
        return self.state.builds[build].jobs + self.state.home_counts.get(build, 0)


def lease(worker: str) -> Lease:
    found = SimpleNamespace(worker=worker, slot_numbers=SlotNumbers(), take_traffic=lambda: (0, 0, 0))
    return cast(Lease, found)


async def until_it_knows(scene: Scene, kind: str, count: int = 1) -> None:
    with trio.fail_after(5):
        while scene.kinds.count(kind) < count:  # noqa: ASYNC110
            await trio.sleep(0.01)


async def test_a_running_job_is_shown_on_its_worker_and_a_retried_one_nowhere() -> None:
    scene = Scene()
    async with scene.read():
        job = scene.job()
        with scene.recorder.following(job):
            assert place_text(scene.state.jobs[job.id]) == "not decided yet"
            with pytest.raises(Retryable), scene.recorder.attempt(job, lease("w1")):
                assert place_text(scene.state.jobs[job.id]) == "w1:0"
                assert [place_text(shown) for shown in scene.snapshot().jobs] == ["w1:0"]
                raise Retryable(Reason.CONNECTION_LOST, "gone")
            assert place_text(scene.state.jobs[job.id]) == "not decided yet"
            assert [place_text(shown) for shown in scene.snapshot().jobs] == ["not decided yet"]
            with scene.recorder.attempt(job, lease("w2")):
                assert place_text(scene.state.jobs[job.id]) == "w2:0"
                scene.recorder.published(job)
        await until_it_knows(scene, "JobHome")
        assert scene.state.last_home and place_text(scene.state.last_home) == "w2:0"


async def test_a_job_that_is_cancelled_on_a_worker_is_shown_there() -> None:
    scene = Scene()
    async with scene.read():
        job = scene.job()
        with trio.CancelScope() as scope, scene.recorder.following(job), scene.recorder.attempt(job, lease("w1")):
            scope.cancel()
            await trio.sleep(1)
        await until_it_knows(scene, "JobHome")
        assert scene.state.last_home and place_text(scene.state.last_home) == "w1:0"


async def test_a_build_is_shown_under_its_final_number(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    (tmp_path / part_name(1, 0)).write_bytes(RECORDS_HEAD)  # another master, where there are no locks
    async with scene.read():
        build = scene.recorder.start_build("make", ("make",), "/", {}, 1)
        scene._read(scene.snapshot())
        assert scene.state.builds == {}
        await until_it_knows(scene, "BuildStarted")
        assert list(scene.state.builds) == [build.id] == [2]
        await scene.recorder.end_build(build, 0, 0)
        assert scene.state.builds == {} and scene.kinds[-1] == "BuildEnded"


@pytest.mark.logs("records-not-written")
async def test_a_build_of_a_second_master_names_no_record_of_the_first_one(tmp_path: Path) -> None:
    scenes = [Scene(tmp_path), Scene(tmp_path)]
    async with scenes[0].read(), scenes[1].read():
        builds = [scene.recorder.start_build("make", ("make",), "/", {}, 1) for scene in scenes]
        for scene, build in zip(scenes, builds, strict=True):
            await scene.recorder.end_build(build, 0, 0)
            assert scene.kinds[-1] == "BuildEnded"
    assert [build.recorded_id for build in builds] == [1, 0]


async def test_each_job_counts_once_in_the_progress_whenever_a_snapshot_comes() -> None:
    scene = Scene()
    write_batch, snapshots = RecordKeeper.write_batch, []

    async def write_and_look(keeper: RecordKeeper) -> object:
        written = await write_batch(keeper)
        snapshots.append(scene.snapshot())  # for a reader who comes before the jobs' JobHome
        scene._read(snapshots[-1])
        return written

    with patch.object(RecordKeeper, "write_batch", write_and_look):
        async with scene.read():
            build = scene.recorder.start_build("make", ("make",), "/", {}, 1)
            await until_it_knows(scene, "BuildStarted")
            with patch.object(scene.recorder._builds, "find", return_value=(build, False)):
                for _ in range(3):
                    scene.home(scene.job())
            await until_it_knows(scene, "JobHome", 3)
            assert scene.progress(build.id) == 3
            assert snapshots[-1].builds[0].jobs == 0 and len(snapshots[-1].jobs) == 3
            scene._read(scene.snapshot())
            assert (scene.progress(build.id), scene.state.all_home) == (3, 3)


@pytest.mark.parametrize(
    "trouble",
    [
        pytest.param("full", marks=pytest.mark.logs("records-dropped")),
        pytest.param("bug", marks=pytest.mark.logs("record-failed")),
    ],
)
async def test_a_job_without_a_record_is_home_for_readers(trouble: str) -> None:
    scene = Scene()
    async with scene.read():
        job = scene.job()
        if trouble == "full":
            with patch.object(record_keeper, "MAX_STEPS", 0):
                scene.home(job)
        else:
            with scene.recorder.following(job), scene.recorder.attempt(job, lease("w1")):
                job.notes.changes = cast(tuple[Change, ...], 5)
                scene.recorder.published(job)
        await until_it_knows(scene, "JobHome")
        assert (scene.state.jobs, scene.state.all_home) == ({}, 1)
        assert scene.state.last_home and place_text(scene.state.last_home) == "w1:0" and scene.state.last_home.home_s
        assert scene.snapshot().jobs == ()


async def test_every_reader_learns_what_the_snapshot_of_another_has_found() -> None:
    scene = Scene()
    states = [LiveState(), LiveState()]

    async def read(state: LiveState) -> None:
        frames = launcher_frames.FrameBuffer()

        async def send(sent: bytes) -> None:
            for _, payload in frames.feed(sent):
                state.apply(parse_event(payload))

        await scene.recorder.watchers.serve(send)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read, states[0])
        await trio.testing.wait_all_tasks_blocked()
        scene.workers["w1"] = WorkerState(name="w1", running=3)
        nursery.start_soon(read, states[1])
        with trio.fail_after(5):
            while not all(state.workers for state in states):  # noqa: ASYNC110
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    assert states[0].workers == states[1].workers == {"w1": WorkerState(name="w1", running=3)}


@pytest.mark.logs("records-not-written")
async def test_a_disk_that_stands_still_holds_up_neither_a_build_nor_the_end_of_the_master(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(recorder, "END_PATIENCE_S", 0.1)
    monkeypatch.setattr(record_keeper, "CLOSE_PATIENCE_S", 0.1)
    scene, stands_still, goes_on = Scene(tmp_path), threading.Event(), threading.Event()
    write = RecordWriter.write

    def stand_still(writer: RecordWriter, packed: PackedRecords) -> None:
        stands_still.set()
        goes_on.wait(20)
        write(writer, packed)

    began_s = time.monotonic()
    with patch.object(RecordWriter, "write", stand_still):
        async with scene.read():
            build = scene.recorder.start_build("make", ("make",), "/", {}, 1)
            with trio.fail_after(5):
                while not stands_still.is_set():  # noqa: ASYNC110
                    await trio.sleep(0.01)
            await scene.recorder.end_build(build, 0, 0)
        assert time.monotonic() - began_s < 10
        assert "the disk does not answer" in caplog.text
        goes_on.set()
        rest = [thread for thread in threading.enumerate() if thread.name == "last-records"]
        for thread in rest:
            thread.join(10)
    RecordWriter(tmp_path).close()  # the files are closed, and the lock is free
