"""The tests of one job run once more in the namespaces of an ordinary user's mirror process."""

import os
import shutil
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from termite.engine.host.native_programs import native_program
from tests.e2e.bench import INSIDE
from tests.e2e.places import CHECKOUT, Place

AGAIN = tuple(f"tests/e2e/test_{name}.py" for name in ("sandbox_run", "sandbox_changes", "call_watcher"))


@pytest.mark.timeout(400)  # three files of tests
def test_all_this_holds_in_the_namespaces_of_an_ordinary_users_mirror(
    make_place: Callable[..., AbstractContextManager[Place]],
) -> None:
    with make_place("ordinary") as where:
        sandbox = shutil.copy(native_program("termite-sandbox"), where.base)  # $TERMITE_NATIVE may not be seen there
        # Two at once, because these tests mostly wait for the disk and for processes.
        pytest_again = [sys.executable, "-m", "pytest", "-q", "-n", "2", "-p", "no:cacheprovider", "--basetemp"]
        outcome = where.run(
            [str(sandbox), "enter", "--", *pytest_again, str(where.base / "pytest"), *AGAIN],
            CHECKOUT,
            env={INSIDE: "1", "TERMITE_NATIVE": str(where.base), "PYTHONDONTWRITEBYTECODE": "1"},
            timeout_s=380,
        )
    assert outcome.code == 0, os.fsdecode(outcome.stdout + outcome.stderr)
