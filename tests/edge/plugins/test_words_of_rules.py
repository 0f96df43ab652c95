"""Test the words of rules with texts that are made from the rules themselves."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from termite import Rule
from termite.cli.master_command import BUILT_IN_PLUGINS
from termite.engine.decide.loaded_plugins import Plugins


@pytest.mark.parametrize(
    "rule", [rule for rule in Plugins(BUILT_IN_PLUGINS).rules() if rule.words], ids=lambda rule: "-".join(rule.words)
)
def test_each_text_that_a_rule_finds_has_one_of_its_words(rule: Rule) -> None:
    @settings(max_examples=20, suppress_health_check=list(HealthCheck))
    @given(st.from_regex(rule.regexp))
    def check(text: str) -> None:
        assert any(word in text for word in rule.words)

    check()
