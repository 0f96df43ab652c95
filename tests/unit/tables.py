"""Run one test for all rows of a table.

A case of `pytest.mark.parametrize` is a test of its own, and costs some milliseconds of reports.
For a table of thousands of rows that is most of the time, so a long table is one test.
"""

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pytest

MOST_SHOWN = 300  # characters of a row or of an error in the message

Body = Callable[..., Any]


def each_row(
    names: str | Sequence[str], rows: Iterable[Any], ids: Iterable[str] | None = None
) -> Callable[[Body], Body]:
    """Run the test once for each row, with the values of the row as the arguments `names`.

    All rows run, whatever the first ones do. The test fails if a row fails. The message then names
    each such row and its error, and pytest shows the first error as if it were alone. `ids` are the
    names of the rows, instead of their values. Fixtures are set up once for all rows.
    """
    fields = (names,) if isinstance(names, str) else tuple(names)
    table = [dict(zip(fields, (row,) if isinstance(names, str) else row, strict=True)) for row in rows]
    titles = [_title(row) for row in table] if ids is None else list(ids)
    if not table or len(titles) != len(table):
        raise ValueError(f"{len(table)} rows, {len(titles)} names of rows")

    def decorate(test: Body) -> Body:
        @functools.wraps(test)
        def run(**fixtures: Any) -> None:
            failed = []
            for title, row in zip(titles, table, strict=True):
                try:
                    test(**row, **fixtures)
                except (Exception, pytest.fail.Exception) as error:
                    failed.append((title, error))
            _judge(failed, len(table))

        @functools.wraps(test)
        async def run_async(**fixtures: Any) -> None:
            failed = []
            for title, row in zip(titles, table, strict=True):
                try:
                    await test(**row, **fixtures)
                except (Exception, pytest.fail.Exception) as error:
                    failed.append((title, error))
            _judge(failed, len(table))

        decorated: Body = run_async if inspect.iscoroutinefunction(test) else run
        signature = inspect.signature(test)
        left = [parameter for name, parameter in signature.parameters.items() if name not in fields]
        if len(left) != len(signature.parameters) - len(fields):
            raise ValueError(f"{test.__name__} does not take all of {', '.join(fields)}")
        vars(decorated)["__signature__"] = signature.replace(parameters=left)  # pytest reads it
        return decorated

    return decorate


def _judge(failed: Sequence[tuple[str, BaseException]], count: int) -> None:
    if failed:
        lines = [f"  {title}: {_shown(f'{type(error).__name__}: {error}')}" for title, error in failed]
        text = "\n".join([f"{len(failed)} of {count} rows fail; the first one is shown above", *lines])
        raise AssertionError(text) from failed[0][1]


def _title(row: Mapping[str, object]) -> str:
    return _shown(", ".join(f"{name}={value!r}" for name, value in row.items()))


def _shown(text: str) -> str:
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}..."
