"""What docs/develop/protocol.md promises to describe is described there."""

import re
from pathlib import Path

from termite.engine.wire.protocol import messages, records

PROTOCOL = (Path(__file__).parent.parent.parent / "docs" / "develop" / "protocol.md").read_text()


def test_every_message_between_daemons_is_described() -> None:
    names = {message.__name__ for message in messages.Message.__subclasses__()}
    assert len(names) > 15
    assert {name for name in names if not re.search(rf"\b{name}\b", PROTOCOL)} == set()


def test_every_frame_of_a_launcher_is_described() -> None:
    kinds = {kind.decode() for kind in vars(records).values() if isinstance(kind, bytes) and len(kind) == 1}
    assert len(kinds) > 10
    assert {kind for kind in kinds if f"`{kind}`" not in PROTOCOL} == set()
