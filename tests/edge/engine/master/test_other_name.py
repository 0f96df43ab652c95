"""The second name of a tree belongs to the master that has made it last."""

from pathlib import Path

from termite.engine.master.master_daemon import other_name_of


def test_a_master_that_ends_late_leaves_the_name_of_the_next_one(tmp_path: Path) -> None:
    alias = tmp_path / "trees" / "name"
    late = other_name_of(tmp_path, alias)
    late.__enter__()
    with other_name_of(tmp_path, alias):
        late.__exit__(None, None, None)
        assert alias.readlink() == tmp_path
    assert not alias.is_symlink()
