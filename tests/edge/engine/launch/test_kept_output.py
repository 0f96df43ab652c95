"""The bounds of the output that is kept for a stored result."""

from termite.engine.launch.output import KEPT_RUN_BYTES, PIECE_BYTES, KeptOutput


def test_output_of_many_small_pieces_takes_no_more_memory_than_other_output() -> None:
    kept = KeptOutput()
    for _ in range(KEPT_RUN_BYTES // (1 + PIECE_BYTES)):
        kept.add(1, b".")
    assert not kept.is_too_long
    kept.add(1, b".")
    assert kept.is_too_long and not kept.pieces
    kept.clear()
    kept.add(2, b"x")
    assert kept.pieces == [(2, b"x")] and not kept.is_too_long
