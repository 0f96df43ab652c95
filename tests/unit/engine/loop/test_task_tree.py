"""The tree of tasks says what each task of a daemon waits for, whenever SIGUSR1 comes."""

import logging
import signal

import pytest
import trio

from termite.engine.loop import task_tree


async def wait_for_ever() -> None:
    await trio.sleep_forever()


async def have_a_child() -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait_for_ever)


def depth_of(lines: list[str], name: str) -> int:
    (line,) = [line for line in lines if line.lstrip().startswith(name)]
    return len(line) - len(line.lstrip())


async def test_each_task_stands_below_its_parent_with_its_place() -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(have_a_child)
        await trio.testing.wait_all_tasks_blocked()
        lines = task_tree.task_lines()
        here = f"{__name__}."
        parent, child = f"{here}have_a_child", f"{here}wait_for_ever"
        assert depth_of(lines, child) == depth_of(lines, parent) + 2
        (line,) = [line for line in lines if line.strip().startswith(child)]
        assert line.endswith("in wait_for_ever, in sleep_forever")
        nursery.cancel_scope.cancel()


async def test_each_signal_logs_the_tree_and_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(task_tree.show_tasks_on_signal)
        for count in (1, 2):
            await trio.testing.wait_all_tasks_blocked()
            signal.raise_signal(signal.SIGUSR1)
            await trio.testing.wait_all_tasks_blocked()
            records = [record for record in caplog.records if record.message.startswith("tasks-shown tasks=")]
            assert len(records) == count
            assert any("show_tasks_on_signal" in line for line in vars(records[-1])["further_lines"])
        nursery.cancel_scope.cancel()


async def test_an_error_while_looking_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> list[str]:
        raise RuntimeError("no tree")

    monkeypatch.setattr(task_tree, "task_lines", fail)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(task_tree.show_tasks_on_signal)
        await trio.testing.wait_all_tasks_blocked()
        signal.raise_signal(signal.SIGUSR1)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert any(record.message == "tasks-not-shown" for record in caplog.records)
