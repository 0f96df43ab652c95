"""Errors of several tasks, which come out of a nursery in a group."""

import pytest

from termite.engine.errors import UserError, errors_in, first_error

A, B, C = UserError("a"), UserError("b"), UserError("c")
GROUP = ExceptionGroup("all", [ExceptionGroup("some", [A, ExceptionGroup("one", [B])]), C])


def test_the_errors_in_groups_come_out_in_their_order() -> None:
    assert list(errors_in(GROUP)) == [A, B, C]


def test_the_first_error_comes_out_in_place_of_its_group_with_its_own_cause() -> None:
    error = UserError("it")
    error.__cause__ = cause = OSError("why")
    with pytest.raises(UserError) as caught, first_error():
        raise ExceptionGroup("all", [ExceptionGroup("some", [error]), C])
    assert caught.value is error
    assert error.__cause__ is cause


def test_an_error_that_is_in_no_group_passes() -> None:
    with pytest.raises(UserError) as caught, first_error():
        raise A
    assert caught.value is A
