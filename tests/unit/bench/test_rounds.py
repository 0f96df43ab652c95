"""bench/: sides in alternation, and the results of a part that is interrupted."""

import subprocess

import pytest

from bench.cpu import Accounts
from bench.rounds import BenchError, Settings, alternate
from projects import ProjectError
from tests.unit.tables import each_row


def _settings(**changed: object) -> Settings:
    return Settings(accounts=Accounts(None), say=lambda line: None, **changed)  # type: ignore[arg-type]


class _Side:
    """Returns its turns; raises what is planned for one of them."""

    def __init__(self, planned: dict[int, BaseException] | None = None) -> None:
        self.turn = 0
        self.planned = planned or {}

    def __call__(self) -> int:
        self.turn += 1
        if self.turn in self.planned:
            raise self.planned[self.turn]
        return self.turn


@each_row(
    "ending",
    [
        BenchError("the build failed"),
        ProjectError("the build failed"),
        OSError("the build failed"),
        subprocess.SubprocessError("the build failed"),
        KeyboardInterrupt(),
        SystemExit(),
    ],
)
def test_finished_rounds_outlive_a_later_one(ending: BaseException) -> None:
    settings = _settings()
    results = alternate(settings, {"plain": _Side(), "termite": _Side({3: ending})})
    assert results == {"plain": [1, 2], "termite": [1, 2]}
    assert settings.ended.is_set() is not isinstance(ending, Exception)
    assert settings.notes[0].endswith("after 2 rounds" if settings.ended.is_set() else "the build failed")


@pytest.mark.parametrize("ending", [BenchError("the build failed"), KeyboardInterrupt()])
def test_without_a_finished_round_there_is_nothing_to_keep(ending: BaseException) -> None:
    with pytest.raises(type(ending)):
        alternate(_settings(), {"plain": _Side({1: ending})})
