"""The longest texts that a job, a worker or a tool can send are judged in linear time."""

import time

from termite.engine.decide.logic.command_mask import mask_command
from termite.engine.decide.logic.later_code import find_later_code
from termite.engine.model import Attr, Change
from tests.unit.engine.decide.test_droppable import droppable
from tests.unit.engine.decide.test_later_code import FILE, ROOT
from tests.unit.tables import each_row


@each_row(
    "name", [b".git", b".jj", b".hg", b".config", b".local", b"x.git", b".vimr", b"a", b".", b"\xc3\x9f", b"\xff", b" "]
)
@each_row("end", [b"/x", b"/hooks-", b"/config-"])
def test_a_path_of_many_directories_takes_no_time(name: bytes, end: bytes) -> None:
    """A hostile worker makes the longest path that a message takes. Quadratic time is minutes."""
    path = ROOT + (b"/" + name) * (250_000 // (len(name) + 1)) + end
    started_s = time.process_time()
    assert find_later_code([Change(path, Attr(FILE, 0, 1))], ROOT) == []
    assert time.process_time() - started_s < 1


def test_a_long_text_is_masked_in_linear_time() -> None:
    for piece in (
        "a_token_",
        "x://a:",
        "--password ",
        "eyJaaaaaaaa.",
        "-----BEGIN A ",
        "token='",
        "\\ ",
        "mysql -",
        "curl -u",
        "a_pass_",
        "https://",
    ):
        text = piece * (200_000 // len(piece))
        began_s = time.process_time()
        mask_command(text, {}, ())
        assert time.process_time() - began_s < 2, piece


def test_paths_of_many_names_take_no_time() -> None:
    """A worker may name a thousand paths of the longest kind."""
    places, path = droppable("/home/u/.cache", "__pycache__", "hsperfdata_*", "*.tmp"), "/" + "h/" * 2047
    started_s = time.process_time()
    assert not any(places.place_of(path) for _ in range(1000))
    assert time.process_time() - started_s < 0.7  # it was 1.6 s with one name after another
