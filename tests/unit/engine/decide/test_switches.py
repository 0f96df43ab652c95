"""A variable of termite that has no meaning is named, with what to write instead."""

import pytest

from termite.engine.decide.environment import Environment, environment_of
from termite.engine.decide.logic.switches import check_variables, ignored_settings
from termite.engine.errors import UserError
from termite.engine.model import Command
from tests.unit.tables import each_row

WRONG = [
    ({"TERMITE_LOCAL": "nevr"}, "TERMITE_LOCAL=nevr", "TERMITE_LOCAL=never"),
    ({"TERMITE_LOCAL": "NEVER"}, "TERMITE_LOCAL=NEVER", "TERMITE_LOCAL=never"),
    ({"TERMITE": "of"}, "TERMITE=of", "TERMITE=off"),
    ({"TERMITE": "yes"}, "TERMITE=yes", "TERMITE=off"),
    ({"TERMITE_SHORT": "abc"}, "TERMITE_SHORT=abc", "a number of milliseconds or TERMITE_SHORT=auto"),
    ({"TERMITE_SHORT": "-1"}, "TERMITE_SHORT=-1", "a number of milliseconds or TERMITE_SHORT=auto"),
    ({"TERMITE_SHORT": "nan"}, "TERMITE_SHORT=nan", "a number of milliseconds or TERMITE_SHORT=auto"),
    ({"TERMITE_SHORT": "atuo"}, "TERMITE_SHORT=atuo", "TERMITE_SHORT=auto"),
    ({"TERMITE_TMP": "x"}, "TERMITE_TMP=x", "TERMITE_TMP=shared or TERMITE_TMP=private"),
    ({"TERMITE_LOCL": "never"}, "TERMITE_LOCL", "TERMITE_LOCAL"),
    ({"TERMITE_local": "never"}, "TERMITE_local", "TERMITE_LOCAL"),
    ({"TERMITE_ENV_EXCLUDES": ""}, "TERMITE_ENV_EXCLUDES", "TERMITE_ENV_EXCLUDE"),
]
RIGHT = [
    {},
    {"TERMITE": "", "TERMITE_LOCAL": "", "TERMITE_SHORT": ""},
    {"TERMITE": "off", "TERMITE_LOCAL": "never", "TERMITE_SHORT": "2.5", "TERMITE_TMP": "private"},
    {"TERMITE_SHORT": "auto", "TERMITE_ROOT": "anything", "TERMITE_VERBOSE": "yes"},
    {"TERMITE_NEST_OF_MINE": "1", "TERMITES": "many", "TERMITE_": "x", "termite_local": "nevr"},
]


@each_row(("env", "setting", "correction"), WRONG)
def test_a_wrong_setting_is_refused_or_ignored_in_one_line(env: dict[str, str], setting: str, correction: str) -> None:
    with pytest.raises(UserError) as refused:
        check_variables({"PATH": "/bin", **env})
    assert refused.value.message == f"{setting} has no meaning: write {correction}"
    assert refused.value.hint == ""
    assert ignored_settings(env) == f"{setting} is ignored: write {correction}"


@pytest.mark.parametrize("env", RIGHT)
def test_what_has_a_meaning_or_belongs_to_others_is_accepted(env: dict[str, str]) -> None:
    check_variables(env)
    assert ignored_settings(env) == ""


def test_the_warning_of_an_environment_is_made_once_for_all_its_commands() -> None:
    shared = Environment({"TERMITE": "of"})
    command = Command(argv=("true",), exe="true", search=True, cwd="/", env=shared, text="true")
    assert environment_of(command) is shared
    assert shared.warning is environment_of(command).warning
    assert shared.warning == "TERMITE=of is ignored: write TERMITE=off"
