"""A machine that was added over ssh may answer anything: it is an answer, or one clear error."""

import io
import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from termite.cli.ssh_hosts.far.place import MARK
from termite.cli.ssh_hosts.far_request import MOST_ANSWER_BYTES, _read_answer, checked
from termite.cli.ssh_hosts.host_worker import HostFacts
from termite.cli.ssh_hosts.ssh_faults import ssh_error
from termite.cli.written_files.host_list import HostAddress
from termite.engine.errors import UserError
from tests.unit.mutations import mutations
from tests.unit.tables import each_row

HOST = HostAddress("me", "host", 0)
FACTS = {
    "architecture": "x86_64",
    "kernel": "6.1",
    "cores": 4,
    "memory_bytes": 1 << 30,
    "has": ["fuse"],
    "peer": "10.0.0.1",
    "owner": "me",
    "owner_id": "1000",
    "name": "host",
    "digest": "",
    "is_running": False,
}


def line(message: object) -> bytes:
    return f"{MARK}{json.dumps(message)}\n".encode()


WHOLE = b"Welcome!\n" + line({"note": "unpacks"}) + line({"done": FACTS}) + b"bye\n"
DEEP = f"{MARK}{'[' * 100_000}\n".encode()


def facts(said: bytes) -> tuple[HostFacts | None, list[str]]:
    """Return the facts in what a host says, None if there are none, and the notes."""
    notes: list[str] = []
    answer = _read_answer(HOST, io.BytesIO(said), notes.append)
    return (None if answer is None else checked(HOST, answer, HostFacts)), notes


def test_an_answer_stands_between_what_start_files_print() -> None:
    assert facts(WHOLE) == (FACTS, ["unpacks"])


@pytest.mark.attack
@given(mutations(WHOLE))
def test_a_damaged_answer_is_one_or_a_clear_error(said: bytes) -> None:
    with suppress(UserError):
        found, _ = facts(said)
        assert found is None or found.keys() >= FACTS.keys()


@pytest.mark.attack
def test_an_answer_may_be_cut_anywhere() -> None:
    end_of_answer = WHOLE.index(b"bye") - 1
    for end in range(len(WHOLE)):
        assert (facts(WHOLE[:end])[0] is not None) == (end >= end_of_answer)


@pytest.mark.attack
@each_row(
    "said",
    [
        DEEP,
        line([]),
        line(None),
        line({"done": []}),
        line({"note": {"a": [1]}}),
        f"{MARK}{'9' * 10_000}\n".encode(),
        MARK.encode() + b"\xff\xfe\n",
    ],
)
def test_what_is_no_answer_is_none(said: bytes) -> None:
    assert facts(said)[0] is None


@pytest.mark.attack
@each_row(
    "said",
    [
        line({"done": {"cores": 4}}),
        line({"done": {**FACTS, "cores": -1}}),
        line({"done": {**FACTS, "cores": 2**70}}),
        line({"done": {**FACTS, "has": ["x", 1]}}),
        line({"error": ["x"], "hint": 1, "refused": "no"}),
        f"{MARK}no-python x86_64 Python 3.9\n".encode(),
        b"x" * (MOST_ANSWER_BYTES + 1),
        line({"note": "x"}) * (MOST_ANSWER_BYTES // len(line({"note": "x"})) + 1),
    ],
)
def test_what_it_may_not_say_is_one_clear_error(said: bytes) -> None:
    with pytest.raises(UserError) as refused:
        facts(said)
    assert HOST.text in str(refused.value)


@given(st.integers(), st.text(max_size=200))
def test_whatever_ssh_says_names_the_host(code: int, said: str) -> None:
    assert str(ssh_error(HOST, code, said)).startswith(HOST.text)
