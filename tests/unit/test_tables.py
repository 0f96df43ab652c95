"""A table of rows is one test that fails for each row of its own."""

import inspect

import pytest

from tests.unit.tables import each_row


def test_all_rows_run_and_the_message_names_those_that_fail() -> None:
    ran = []

    @each_row(("one", "two"), [(1, 1), (1, 2), (2, 2), (3, "x" * 1000)])
    def are_equal(one: int, two: int) -> None:
        ran.append(one)
        assert one == two, "they differ"

    with pytest.raises(AssertionError) as caught:
        are_equal()
    first, *rows = str(caught.value).splitlines()
    assert first == "2 of 4 rows fail; the first one is shown above"
    assert [row[:16] for row in rows if row.startswith("  one=")] == ["  one=1, two=2: ", "  one=3, two='xx"]
    assert all(len(row) < 700 for row in rows)
    assert isinstance(caught.value.__cause__, AssertionError) and "they differ" in str(caught.value.__cause__)
    assert ran == [1, 1, 2, 3]


def test_a_row_that_raises_no_error_where_one_is_expected_fails() -> None:
    @each_row("text", ["x", "1"], ids=["a letter", "a digit"])
    def is_refused(text: str) -> None:
        with pytest.raises(ValueError):
            int(text)

    with pytest.raises(AssertionError, match=r"1 of 2 rows fail.*\n  a digit: Failed: DID NOT RAISE"):
        is_refused()


async def test_a_coroutine_is_awaited_for_each_row() -> None:
    @each_row("number", [1, 2, 3])
    async def is_odd(number: int) -> None:
        assert number % 2

    with pytest.raises(AssertionError, match=r"1 of 3 rows fail"):
        await is_odd()


def test_fixtures_and_other_tables_are_left() -> None:
    @each_row("one", [1, 2])
    @each_row("two", [3, 4])
    def judged(one: int, two: int, monkeypatch: object) -> None:
        assert (one, two) != (2, 4)

    assert list(inspect.signature(judged).parameters) == ["monkeypatch"]
    with pytest.raises(AssertionError, match=r"1 of 2 rows fail(.|\n)*one=2: AssertionError: 1 of 2 rows fail"):
        judged(monkeypatch=None)


def test_a_table_without_rows_and_a_test_without_the_argument_are_refused() -> None:
    def judged(one: int) -> None:
        raise AssertionError(one)

    with pytest.raises(ValueError):
        each_row("one", [])
    with pytest.raises(ValueError):
        each_row("two", [1])(judged)
    with pytest.raises(ValueError):
        each_row(("one",), [(1, 2)])(judged)
