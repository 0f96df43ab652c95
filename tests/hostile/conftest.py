"""Provide places for the attacks: `pytest -v tests/hostile` reports each as HELD or BROKEN."""

from tests.e2e.conftest import make_place as make_place
