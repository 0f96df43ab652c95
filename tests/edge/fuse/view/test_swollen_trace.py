"""Test that names of a trace that grow when they are unpacked are refused early."""

import zlib

import msgspec
import pytest

from termite.engine.errors import RemoteProtocolError
from termite.engine.fleet.logic.learnt_names import LearntNames
from tests.unit.fuse.view.test_trace_names import packed


def test_names_that_grow_when_they_are_unpacked_are_refused() -> None:
    bomb = zlib.compress(bytes(200 * 1024 * 1024), 9)
    assert len(bomb) < 256 * 1024
    with pytest.raises(RemoteProtocolError, match="too many"):
        LearntNames().learn(msgspec.structs.replace(packed(), names=bomb))
